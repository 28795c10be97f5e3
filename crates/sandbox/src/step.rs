//! One transition: a pure function from state and event to state and actions. No clock, no system call,
//! no allocation beyond the lists it returns. The driver obeys it to the letter.

use std::time::Duration;

use crate::health::{Health, HealthStatus};
use crate::launch::{OnUnhealthy, RestartPolicy};
use crate::moment::Moment;
use crate::state::{Action, Event, Exit, Milestone, Phase, Pid, Rejected, Stage, State, Then, Timer, What};

/// Docker's first back-off.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Docker's longest back-off.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A process that ran this long starts again with the first back-off.
const STEADY: Duration = Duration::from_secs(10);
/// What a pid 1 without a handler for the stop signal gets: the kernel drops the signal, so waiting for
/// the whole deadline only wastes it. One second is left for a handler that is about to be installed.
const GRACE: Duration = Duration::from_secs(1);
/// After this long a killed process is reported as undying, and killed again.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// What a background process that holds the output open may delay the end by.
const DRAIN_PATIENCE: Duration = Duration::from_millis(250);
/// No such program, in the terms of a shell.
const NOT_FOUND: i32 = 127;
/// It cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// The signal nobody can ignore.
const SIGKILL: i32 = 9;

type Outcome = Result<(State, Vec<Action>), Rejected>;

/// The next state, and what to do.
///
/// # Errors
/// [`Rejected`] when the event makes no sense in this state; the caller keeps its own copy of the state.
pub fn step(mut state: State, event: Event) -> Outcome {
    let at = event.at;
    match event.what {
        What::Go => match state.phase {
            Phase::Created => {
                state.phase = Phase::Starting { first: true, then: Then::Policy };
                Ok((state, vec![Action::Disarm(Timer::Launch), Action::Spawn]))
            }
            _ => Err(Rejected::AlreadyStarted),
        },
        What::EngineGone | What::Timer(Timer::Launch) => match state.phase {
            Phase::Created => {
                let error = Some("the engine left before the container was started".to_owned());
                Ok(end(state, Exit { code: 125, oom: false, error }, Milestone::StartFailed))
            }
            _ => Err(Rejected::Stale),
        },
        What::Spawned(pid) => spawned(state, pid, at),
        What::SpawnFailed(exit) => match state.phase {
            Phase::Starting { first: true, .. } => Ok(end(state, exit, Milestone::StartFailed)),
            Phase::Starting { first: false, then: Then::Down } => {
                Ok(settle(state, exit, Duration::ZERO, Then::Down, at))
            }
            Phase::Starting { first: false, .. } => Ok(restart_failed(state, exit, at)),
            _ => Err(Rejected::Stale),
        },
        What::ProcessExited(exit) => exited(state, exit, at),
        What::Drained | What::Timer(Timer::Drain) => match state.phase {
            Phase::Draining { ref exit, ran, then } => {
                let exit = exit.clone();
                Ok(settle(state, exit, ran, then, at))
            }
            _ => Err(Rejected::Stale),
        },
        What::Stop { signal, timeout, ignored } => {
            stop(state, Order { signal, timeout, ignored, then: Then::Down }, at)
        }
        What::Restart { timeout, ignored } => {
            stop(state, Order { signal: None, timeout, ignored, then: Then::Restart }, at)
        }
        What::Shutdown => {
            let by_user = state.stopped_by_user;
            let order = Order { signal: None, timeout: None, ignored: false, then: Then::Down };
            let (mut state, actions) = stop(state, order, at)?;
            state.stopped_by_user = by_user;
            Ok((state, actions))
        }
        What::Kill(signal) => kill(state, signal, at),
        What::Pause => pause(state),
        What::Unpause => unpause(state, at),
        What::SetPolicy(policy) => {
            if matches!(state.phase, Phase::Exited { .. }) {
                return Err(Rejected::NotRunning);
            }
            state.rules.restart = policy;
            Ok((state, vec![Action::Persist]))
        }
        What::GraceOver { ignored } => grace_over(state, ignored, at),
        What::Timer(timer) => timed(state, timer, at),
        What::Probed(success) => probed(state, success, at),
    }
}

fn spawned(mut state: State, pid: Pid, at: Moment) -> Outcome {
    let Phase::Starting { then, .. } = state.phase else { return Err(Rejected::Stale) };
    let mut actions = Vec::new();
    if then == Then::Down {
        // A stop came while the process was made.
        state.phase = Phase::Stopping { pid, since: at, stage: Stage::Killed, then };
        actions.extend([Action::KillAll, Action::Arm(Timer::Kill, at.after(KILL_PATIENCE))]);
    } else {
        state.phase = Phase::Running { pid, since: at };
    }
    state.last_run = false;
    state.health = state.rules.health.map(|_| Health::starting(at));
    arm_probe(&state, at, &mut actions);
    actions.extend([Action::Persist, Action::Notify(Milestone::Running)]);
    Ok((state, actions))
}

/// The program is not there any more, or cannot be executed: trying again does not mend that, and Docker
/// gives up too. The host's troubles (no memory, no process ids) pass: those have the policy's back-off.
fn restart_failed(state: State, exit: Exit, at: Moment) -> (State, Vec<Action>) {
    let (state, rest) = if matches!(exit.code, NOT_FOUND | NOT_EXECUTABLE) {
        end(state, exit, Milestone::StartFailed)
    } else {
        settle(state, exit, Duration::ZERO, Then::Policy, at)
    };
    let mut actions = vec![Action::Notify(Milestone::RestartFailed)];
    actions.extend(rest);
    (state, actions)
}

fn exited(mut state: State, exit: Exit, at: Moment) -> Outcome {
    let (since, then) = match state.phase {
        Phase::Running { since, .. } | Phase::Paused { since, .. } => {
            (since, if state.last_run { Then::Down } else { Then::Policy })
        }
        Phase::Stopping { since, then, .. } => (since, then),
        _ => return Err(Rejected::Stale),
    };
    state.phase = Phase::Draining { exit, ran: at.since(since), then };
    let actions = vec![
        Action::Disarm(Timer::Stop),
        Action::Disarm(Timer::Grace),
        Action::Disarm(Timer::Kill),
        Action::Disarm(Timer::Probe),
        Action::Disarm(Timer::ProbeDeadline),
        Action::KillProbe,
        // What outlives the first process (shared pid namespace) does not outlive the container.
        Action::KillAll,
        Action::Arm(Timer::Drain, at.after(DRAIN_PATIENCE)),
        Action::Drain,
    ];
    Ok((state, actions))
}

/// The process is gone and its output kept: what now?
fn settle(mut state: State, exit: Exit, ran: Duration, then: Then, at: Moment) -> (State, Vec<Action>) {
    state.health = None;
    let mut actions = vec![Action::Disarm(Timer::Drain), Action::CloseStreams];
    match then {
        Then::Down => {
            let (state, rest) = end(state, exit, Milestone::Down);
            actions.extend(rest);
            return (state, actions);
        }
        Then::Restart => {
            state.phase = Phase::Starting { first: false, then: Then::Policy };
            state.delay = Duration::ZERO;
            actions.extend([Action::Notify(Milestone::ProcessEnded), Action::Spawn]);
            return (state, actions);
        }
        Then::Policy => {}
    }
    let again = match state.rules.restart {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max } => exit.code != 0 && max.is_none_or(|max| state.restarts < max),
    };
    if !again {
        let (state, rest) = end(state, exit, Milestone::Down);
        actions.extend(rest);
        return (state, actions);
    }
    if ran >= STEADY {
        state.delay = Duration::ZERO;
    }
    state.delay = if state.delay.is_zero() { FIRST_DELAY } else { (state.delay * 2).min(LONGEST_DELAY) };
    state.restarts = state.restarts.saturating_add(1);
    let until = at.after(state.delay);
    state.phase = Phase::Backoff { exit, until };
    actions.extend([
        Action::Arm(Timer::Backoff, until),
        Action::Persist,
        Action::Notify(Milestone::ProcessEnded),
    ]);
    (state, actions)
}

fn end(mut state: State, exit: Exit, milestone: Milestone) -> (State, Vec<Action>) {
    state.phase = Phase::Exited { exit };
    state.health = None;
    (state, vec![Action::Undo, Action::Persist, Action::Notify(milestone), Action::Leave])
}

/// What a stop asks for.
#[derive(Clone, Copy)]
struct Order {
    signal: Option<i32>,
    timeout: Option<Option<Duration>>,
    ignored: bool,
    then: Then,
}

fn stop(mut state: State, order: Order, at: Moment) -> Outcome {
    if order.then == Then::Down {
        state.stopped_by_user = true;
    }
    let (pid, since, thaw) = match state.phase {
        Phase::Created => return Err(Rejected::NotRunning),
        Phase::Starting { first, .. } => {
            state.phase = Phase::Starting { first, then: order.then };
            return Ok((state, Vec::new()));
        }
        Phase::Running { pid, since } => (pid, since, false),
        Phase::Paused { pid, since } => (pid, since, true),
        Phase::Stopping { then: Then::Down, .. } if order.then != Then::Down => {
            return Err(Rejected::Stopping);
        }
        Phase::Stopping { pid, since, stage: Stage::Killed, .. } => {
            state.phase = Phase::Stopping { pid, since, stage: Stage::Killed, then: order.then };
            return Ok((state, Vec::new()));
        }
        Phase::Stopping { pid, since, .. } => (pid, since, false),
        Phase::Draining { then: Then::Down, .. } if order.then != Then::Down => {
            return Err(Rejected::Stopping);
        }
        Phase::Draining { exit, ran, .. } => {
            state.phase = Phase::Draining { exit, ran, then: order.then };
            return Ok((state, Vec::new()));
        }
        Phase::Backoff { exit, .. } => {
            let mut actions = vec![Action::Disarm(Timer::Backoff)];
            let (state, rest) = if order.then == Then::Down {
                state.phase = Phase::Created;
                end(state, exit, Milestone::Down)
            } else {
                state.phase = Phase::Starting { first: false, then: Then::Policy };
                (state, vec![Action::Spawn])
            };
            actions.extend(rest);
            return Ok((state, actions));
        }
        Phase::Exited { .. } if order.then == Then::Down => {
            return Ok((state, vec![Action::Notify(Milestone::Down)]));
        }
        Phase::Exited { .. } => return Err(Rejected::NotRunning),
    };
    let signal = order.signal.unwrap_or(state.rules.stop_signal);
    let timeout = order.timeout.unwrap_or(state.rules.stop_timeout);
    let mut actions =
        vec![Action::Disarm(Timer::Probe), Action::Disarm(Timer::ProbeDeadline), Action::KillProbe];
    if let Some(health) = &mut state.health {
        health.probing = false;
    }
    let at_once = signal == SIGKILL || timeout == Some(Duration::ZERO);
    let stage = if at_once { Stage::Killed } else { Stage::Asked };
    state.phase = Phase::Stopping { pid, since, stage, then: order.then };
    if at_once {
        if signal != SIGKILL {
            actions.push(Action::Signal(signal));
        }
        actions.extend(killing(at));
    } else {
        actions.push(Action::Signal(signal));
        match timeout {
            Some(timeout) => actions.push(Action::Arm(Timer::Stop, at.after(timeout))),
            None => actions.push(Action::Disarm(Timer::Stop)),
        }
        if order.ignored && timeout.is_none_or(|timeout| timeout > GRACE) {
            actions.push(Action::Arm(Timer::Grace, at.after(GRACE)));
        }
    }
    if thaw {
        actions.push(Action::Thaw);
    }
    actions.push(Action::Persist);
    Ok((state, actions))
}

fn killing(at: Moment) -> [Action; 4] {
    [
        Action::Disarm(Timer::Stop),
        Action::Disarm(Timer::Grace),
        Action::KillAll,
        Action::Arm(Timer::Kill, at.after(KILL_PATIENCE)),
    ]
}

fn grace_over(mut state: State, ignored: bool, at: Moment) -> Outcome {
    let Phase::Stopping { pid, since, stage: Stage::Asked, then } = state.phase else {
        return Err(Rejected::Stale);
    };
    if !ignored {
        // It has a handler now, installed after the first signal was dropped: ask again.
        let signal = state.rules.stop_signal;
        return Ok((state, vec![Action::Signal(signal)]));
    }
    state.phase = Phase::Stopping { pid, since, stage: Stage::Killed, then };
    Ok((state, killing(at).into()))
}

fn kill(mut state: State, signal: i32, at: Moment) -> Outcome {
    // SIGKILL and the stop signal are a user's wish to end it; any other signal is the program's business.
    let deadly = signal == SIGKILL || signal == state.rules.stop_signal;
    match state.phase {
        Phase::Running { .. } | Phase::Paused { .. } if !deadly => Ok((state, vec![Action::Signal(signal)])),
        Phase::Running { pid, since } | Phase::Paused { pid, since } => {
            state.stopped_by_user = true;
            state.last_run = true;
            let thaw = matches!(state.phase, Phase::Paused { .. });
            let mut actions = Vec::new();
            if signal == SIGKILL {
                state.phase = Phase::Stopping { pid, since, stage: Stage::Killed, then: Then::Down };
                actions.push(Action::KillProbe);
                actions.extend(killing(at));
            } else {
                // It goes on running, without a deadline: `kill` promises a signal, not an end.
                state.phase = Phase::Running { pid, since };
                actions.push(Action::Signal(signal));
            }
            if thaw {
                actions.push(Action::Thaw);
                arm_probe(&state, at, &mut actions);
            }
            actions.push(Action::Persist);
            Ok((state, actions))
        }
        Phase::Stopping { pid, since, then, .. } if signal == SIGKILL => {
            state.phase = Phase::Stopping { pid, since, stage: Stage::Killed, then };
            Ok((state, killing(at).into()))
        }
        Phase::Stopping { .. } => Ok((state, vec![Action::Signal(signal)])),
        Phase::Backoff { ref exit, .. } if deadly => {
            let exit = exit.clone();
            state.stopped_by_user = true;
            let (state, rest) = end(state, exit, Milestone::Down);
            let mut actions = vec![Action::Disarm(Timer::Backoff)];
            actions.extend(rest);
            Ok((state, actions))
        }
        _ => Err(Rejected::NotRunning),
    }
}

fn pause(mut state: State) -> Outcome {
    match state.phase {
        Phase::Running { pid, since } => {
            state.phase = Phase::Paused { pid, since };
            if let Some(health) = &mut state.health {
                health.probing = false;
            }
            let actions = vec![
                Action::Disarm(Timer::Probe),
                Action::Disarm(Timer::ProbeDeadline),
                Action::KillProbe,
                Action::Freeze,
                Action::Persist,
            ];
            Ok((state, actions))
        }
        Phase::Paused { .. } => Err(Rejected::Paused),
        Phase::Stopping { .. } => Err(Rejected::Stopping),
        _ => Err(Rejected::NotRunning),
    }
}

fn unpause(mut state: State, at: Moment) -> Outcome {
    let Phase::Paused { pid, since } = state.phase else {
        return Err(if state.pid().is_some() { Rejected::NotPaused } else { Rejected::NotRunning });
    };
    state.phase = Phase::Running { pid, since };
    let mut actions = vec![Action::Thaw];
    arm_probe(&state, at, &mut actions);
    actions.push(Action::Persist);
    Ok((state, actions))
}

fn timed(mut state: State, timer: Timer, at: Moment) -> Outcome {
    match (timer, &state.phase) {
        (Timer::Stop, &Phase::Stopping { pid, since, stage: Stage::Asked, then }) => {
            state.phase = Phase::Stopping { pid, since, stage: Stage::Killed, then };
            Ok((state, killing(at).into()))
        }
        (Timer::Kill, Phase::Stopping { stage: Stage::Killed, .. }) => {
            let mut actions = vec![Action::Notify(Milestone::Undying)];
            actions.extend(killing(at));
            Ok((state, actions))
        }
        (Timer::Backoff, Phase::Backoff { .. }) => {
            state.phase = Phase::Starting { first: false, then: Then::Policy };
            Ok((state, vec![Action::Spawn]))
        }
        (Timer::Probe, Phase::Running { .. }) => {
            let (Some(rules), Some(health)) = (state.rules.health, &mut state.health) else {
                return Err(Rejected::Stale);
            };
            if health.probing {
                return Err(Rejected::Stale);
            }
            health.probing = true;
            Ok((state, vec![Action::Arm(Timer::ProbeDeadline, at.after(rules.timeout)), Action::Probe]))
        }
        (Timer::ProbeDeadline, Phase::Running { .. }) if state.health.is_some_and(|h| h.probing) => {
            let (state, mut actions) = probed(state, false, at)?;
            actions.insert(0, Action::KillProbe);
            Ok((state, actions))
        }
        _ => Err(Rejected::Stale),
    }
}

fn probed(mut state: State, success: bool, at: Moment) -> Outcome {
    let (Phase::Running { .. }, Some(rules), Some(health)) = (&state.phase, state.rules.health, state.health)
    else {
        return Err(Rejected::Stale);
    };
    if !health.probing {
        return Err(Rejected::Stale);
    }
    let next = health.probed(success, &rules, at);
    state.health = Some(next);
    let mut actions = vec![Action::Disarm(Timer::ProbeDeadline)];
    let fell = next.status == HealthStatus::Unhealthy && health.status != HealthStatus::Unhealthy;
    let then = match rules.on_unhealthy {
        _ if !fell => None,
        OnUnhealthy::None => None,
        OnUnhealthy::Kill => Some((Some(SIGKILL), Then::Policy)),
        OnUnhealthy::Restart => Some((None, Then::Restart)),
        OnUnhealthy::Stop => Some((None, Then::Down)),
    };
    match then {
        None => {
            arm_probe(&state, at, &mut actions);
            actions.push(Action::Persist);
            Ok((state, actions))
        }
        Some((signal, then)) => {
            let by_user = state.stopped_by_user;
            let (mut state, rest) = stop(state, Order { signal, timeout: None, ignored: false, then }, at)?;
            state.stopped_by_user = by_user;
            actions.extend(rest);
            Ok((state, actions))
        }
    }
}

fn arm_probe(state: &State, at: Moment, actions: &mut Vec<Action>) {
    if let (Phase::Running { .. }, Some(rules), Some(health)) =
        (&state.phase, &state.rules.health, &state.health)
    {
        actions.push(Action::Arm(Timer::Probe, at.after(health.wait(rules, at))));
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
