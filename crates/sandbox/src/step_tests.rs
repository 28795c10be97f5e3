//! The whole state x event table as a snapshot, and random histories against the invariants.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::health::HealthRules;
use crate::state::Rules;

const NOW: Moment = Moment(60_000_000_000);
const PID: Pid = Pid(77);

fn rules(restart: RestartPolicy) -> Rules {
    Rules {
        restart,
        stop_signal: 15,
        stop_timeout: Some(Duration::from_secs(10)),
        health: Some(HealthRules {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            retries: 1,
            on_unhealthy: OnUnhealthy::Kill,
        }),
    }
}

fn dead(code: i32) -> Exit {
    Exit { code, oom: false, error: None }
}

fn states() -> Vec<(&'static str, Phase)> {
    let since = Moment(59_000_000_000);
    let stopping = |stage, then| Phase::Stopping { pid: PID, since, stage, then };
    let draining = |then| Phase::Draining { exit: dead(1), ran: Duration::from_secs(1), then };
    vec![
        ("created", Phase::Created),
        ("starting first", Phase::Starting { first: true, then: Then::Policy }),
        ("starting again", Phase::Starting { first: false, then: Then::Policy }),
        ("running", Phase::Running { pid: PID, since }),
        ("paused", Phase::Paused { pid: PID, since }),
        ("stopping asked", stopping(Stage::Asked, Then::Down)),
        ("stopping to restart", stopping(Stage::Asked, Then::Restart)),
        ("stopping killed", stopping(Stage::Killed, Then::Down)),
        ("draining", draining(Then::Policy)),
        ("draining down", draining(Then::Down)),
        ("backoff", Phase::Backoff { exit: dead(1), until: Moment(61_000_000_000) }),
        ("exited", Phase::Exited { exit: dead(1) }),
    ]
}

fn events() -> Vec<(&'static str, What)> {
    let stop = |ignored| What::Stop { signal: None, timeout: None, ignored };
    vec![
        ("go", What::Go),
        ("engine gone", What::EngineGone),
        ("spawned", What::Spawned(PID)),
        ("spawn failed", What::SpawnFailed(dead(127))),
        ("spawn failed, host", What::SpawnFailed(dead(125))),
        ("process exited", What::ProcessExited(dead(1))),
        ("drained", What::Drained),
        ("stop", stop(false)),
        ("stop, ignored", stop(true)),
        ("stop now", What::Stop { signal: None, timeout: Some(Some(Duration::ZERO)), ignored: false }),
        ("stop, for ever", What::Stop { signal: None, timeout: Some(None), ignored: false }),
        ("shutdown", What::Shutdown),
        ("restart", What::Restart { timeout: None, ignored: false }),
        ("kill TERM", What::Kill(15)),
        ("kill HUP", What::Kill(1)),
        ("kill KILL", What::Kill(9)),
        ("pause", What::Pause),
        ("unpause", What::Unpause),
        ("policy no", What::SetPolicy(RestartPolicy::No)),
        ("timer stop", What::Timer(Timer::Stop)),
        ("timer kill", What::Timer(Timer::Kill)),
        ("timer drain", What::Timer(Timer::Drain)),
        ("timer backoff", What::Timer(Timer::Backoff)),
        ("timer probe", What::Timer(Timer::Probe)),
        ("timer launch", What::Timer(Timer::Launch)),
        ("timer probe deadline", What::Timer(Timer::ProbeDeadline)),
        ("grace over, ignored", What::GraceOver { ignored: true }),
        ("grace over, handled", What::GraceOver { ignored: false }),
        ("probe ok", What::Probed(true)),
        ("probe failed", What::Probed(false)),
    ]
}

fn phase_name(phase: &Phase) -> String {
    match phase {
        Phase::Created => "created".into(),
        Phase::Starting { then, .. } => format!("starting({then:?})"),
        Phase::Running { .. } => "running".into(),
        Phase::Paused { .. } => "paused".into(),
        Phase::Stopping { stage, then, .. } => format!("stopping({stage:?} {then:?})"),
        Phase::Draining { then, .. } => format!("draining({then:?})"),
        Phase::Backoff { .. } => "backoff".into(),
        Phase::Exited { exit } => format!("exited({})", exit.code),
    }
}

fn action_name(action: &Action) -> String {
    match action {
        Action::Arm(timer, until) => format!("arm {timer:?} +{}ms", until.since(NOW).as_millis()),
        Action::Disarm(timer) => format!("disarm {timer:?}"),
        Action::Notify(milestone) => format!("tell {milestone:?}"),
        other => format!("{other:?}"),
    }
}

fn state_in(phase: Phase, restart: RestartPolicy) -> State {
    let mut state = State::new(rules(restart));
    if matches!(phase, Phase::Running { .. }) {
        state.health = Some(Health { probing: true, ..Health::starting(NOW) });
    }
    state.phase = phase;
    state
}

#[test]
fn restart_gives_up_when_the_program_is_gone_and_only_then() {
    for (code, gives_up) in [(127, true), (126, true), (125, false)] {
        let state = state_in(Phase::Starting { first: false, then: Then::Policy }, RestartPolicy::Always);
        let event = Event { at: NOW, what: What::SpawnFailed(dead(code)) };
        let (next, actions) = step(state, event).expect("a transition");
        assert_eq!(matches!(next.phase, Phase::Exited { .. }), gives_up, "{code}");
        assert_eq!(matches!(next.phase, Phase::Backoff { .. }), !gives_up, "{code}");
        // Who asked for the restart hears of it at once either way.
        assert_eq!(actions[0], Action::Notify(Milestone::RestartFailed), "{code}");
    }
}

#[test]
fn table_of_states_and_events_is_as_recorded() {
    let mut table = String::new();
    for (name, phase) in states() {
        let _ = writeln!(table, "{name}");
        for (event, what) in events() {
            let state = state_in(phase.clone(), RestartPolicy::Always);
            let line = match step(state.clone(), Event { at: NOW, what }) {
                // Late news and meaningless requests are the rule: the table shows them in one word.
                Err(Rejected::Stale) => continue,
                Err(rejected) => format!("refused: {rejected}"),
                Ok((next, actions)) => {
                    let actions: Vec<_> = actions.iter().map(action_name).collect();
                    format!("{} [{}]", phase_name(&next.phase), actions.join(", "))
                }
            };
            let _ = writeln!(table, "  {event:<22} -> {line}");
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn on_failure_counts_and_gives_up() {
    let mut state =
        state_in(Phase::Running { pid: PID, since: NOW }, RestartPolicy::OnFailure { max: Some(2) });
    let mut at = NOW;
    for n in 0..3_u32 {
        let feed = |state: State, what| step(state, Event { at, what }).expect("legal").0;
        state = feed(state, What::ProcessExited(dead(1)));
        state = feed(state, What::Drained);
        if n == 2 {
            assert!(matches!(state.phase, Phase::Exited { .. }));
            break;
        }
        let Phase::Backoff { until, .. } = state.phase else { panic!("{:?}", state.phase) };
        assert_eq!(until.since(at), Duration::from_millis(100 << n));
        at = until;
        let feed = |state: State, what| step(state, Event { at, what }).expect("legal").0;
        state = feed(state, What::Timer(Timer::Backoff));
        state = feed(state, What::Spawned(PID));
    }
    assert_eq!(state.restarts, 2);
    // Success is no failure.
    let state = state_in(Phase::Running { pid: PID, since: NOW }, RestartPolicy::OnFailure { max: None });
    let (state, _) = step(state, Event { at, what: What::ProcessExited(dead(0)) }).expect("legal");
    let (state, _) = step(state, Event { at, what: What::Drained }).expect("legal");
    assert!(matches!(state.phase, Phase::Exited { .. }));
}

#[test]
fn backoff_doubles_to_a_minute_and_a_steady_run_resets_it() {
    let mut state = state_in(Phase::Running { pid: PID, since: NOW }, RestartPolicy::Always);
    let mut at = NOW;
    for expected in [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000] {
        for what in [What::ProcessExited(dead(0)), What::Drained] {
            state = step(state, Event { at, what }).expect("legal").0;
        }
        let Phase::Backoff { until, .. } = state.phase else { panic!("{:?}", state.phase) };
        assert_eq!(until.since(at).as_millis(), expected);
        at = until;
        for what in [What::Timer(Timer::Backoff), What::Spawned(PID)] {
            state = step(state, Event { at, what }).expect("legal").0;
        }
    }
    at = at.after(Duration::from_secs(10));
    for what in [What::ProcessExited(dead(0)), What::Drained] {
        state = step(state, Event { at, what }).expect("legal").0;
    }
    assert_eq!(state.delay, FIRST_DELAY);
}

fn any_event() -> impl Strategy<Value = What> {
    let all = events();
    (0..all.len()).prop_map(move |n| all[n].1.clone())
}

/// A world that obeys actions, so that histories are possible ones.
#[derive(Default)]
struct World {
    running: u32,
    spawning: bool,
    ended: u32,
    undone: u32,
}

impl World {
    fn obey(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Spawn => {
                    assert!(!self.spawning && self.running == 0, "two processes");
                    assert_eq!(self.ended, 0, "started after the end");
                    self.spawning = true;
                }
                Action::Undo => self.undone += 1,
                Action::Leave => self.ended += 1,
                _ => {}
            }
        }
    }

    /// Whether the event can happen at all.
    fn possible(&self, what: &What) -> bool {
        match what {
            What::Spawned(_) | What::SpawnFailed(_) => self.spawning,
            What::ProcessExited(_) => self.running == 1,
            _ => true,
        }
    }

    fn saw(&mut self, what: &What) {
        match what {
            What::Spawned(_) => {
                self.spawning = false;
                self.running = 1;
            }
            What::SpawnFailed(_) => self.spawning = false,
            What::ProcessExited(_) => self.running = 0,
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants(
        history in proptest::collection::vec((any_event(), 0_u64..20_000_000_000), 1..60),
        policy in prop_oneof![Just(RestartPolicy::No), Just(RestartPolicy::Always),
            Just(RestartPolicy::UnlessStopped), Just(RestartPolicy::OnFailure { max: Some(3) })],
    ) {
        let mut state = State::new(rules(policy));
        let mut world = World::default();
        let mut at = Moment(0);
        for (what, pause) in history {
            at = Moment(at.0 + pause);
            if !world.possible(&what) {
                continue;
            }
            let before = state.clone();
            match step(state, Event { at, what: what.clone() }) {
                Ok((next, actions)) => {
                    world.saw(&what);
                    world.obey(&actions);
                    state = next;
                }
                Err(_) => {
                    // News of the process itself are never refused: they would be lost.
                    let news = matches!(what, What::ProcessExited(_) | What::Spawned(_) | What::SpawnFailed(_));
                    prop_assert!(!news);
                    state = before;
                }
            }
            prop_assert_eq!(state.pid().is_some(), world.running == 1);
            prop_assert!(world.ended <= 1 && world.undone == world.ended);
            prop_assert_eq!(matches!(state.phase, Phase::Exited { .. }), world.ended == 1);
        }
        // From anywhere, a stop and what must follow it by deadlines lead to the end.
        if matches!(state.phase, Phase::Created) {
            state = step(state, Event { at, what: What::Go }).expect("created").0;
            world.spawning = true;
        }
        let stop = What::Stop { signal: None, timeout: Some(Some(Duration::from_secs(1))), ignored: false };
        let (next, actions) = step(state, Event { at, what: stop }).expect("stop is never refused");
        state = next;
        world.obey(&actions);
        for _ in 0..8 {
            at = at.after(Duration::from_secs(30));
            let what = match state.phase {
                Phase::Starting { .. } => What::Spawned(PID),
                Phase::Stopping { stage: Stage::Asked, .. } => What::Timer(Timer::Stop),
                Phase::Stopping { stage: Stage::Killed, .. } => What::ProcessExited(dead(137)),
                Phase::Draining { .. } => What::Timer(Timer::Drain),
                _ => break,
            };
            let (next, actions) = step(state, Event { at, what: what.clone() }).expect("legal");
            world.saw(&what);
            world.obey(&actions);
            state = next;
        }
        let ended = matches!(state.phase, Phase::Exited { .. });
        prop_assert!(ended, "{:?}", state.phase);
        prop_assert_eq!(world.ended, 1);
        // A second stop of an ended container is a success without effect.
        let again = What::Stop { signal: None, timeout: None, ignored: false };
        let (next, actions) = step(state.clone(), Event { at, what: again }).expect("idempotent");
        prop_assert_eq!(&next.phase, &state.phase);
        prop_assert_eq!(actions, vec![Action::Notify(Milestone::Down)]);
    }
}
