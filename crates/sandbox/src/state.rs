//! The states of one container's life. Each state owns exactly what exists in it: a pid lives in the states
//! with a process and in no other, so a stopped container cannot hold one.
//!
//! ```text
//! Created ──go──► Starting ──spawned──► Running ◄──► Paused
//!    │               │ ▲                  │ │           │
//!    │          failed │            stop  │ └─ exit ─┐  │ stop
//!    ▼               ▼ │                  ▼          ▼  ▼
//!  Exited ◄──────────┤ Backoff ◄──── Draining ◄──── Stopping
//!                    └───────────────────┘
//! ```

use std::time::Duration;

use crate::health::{Health, HealthRules};
use crate::launch::RestartPolicy;
use crate::moment::Moment;

/// A process id as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pid(pub i32);

/// How a process ended, in the terms of a shell: 128+n for signal n.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// 0..=255.
    pub code: i32,
    /// The kernel's OOM killer took a process of the container.
    pub oom: bool,
    /// Why it could not be started, if it could not.
    pub error: Option<String>,
}

/// What is done when the process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// What the restart policy says.
    Policy,
    /// Stay down: a user stopped it.
    Down,
    /// Start again at once: a user asked, or a probe.
    Restart,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The stop signal was sent.
    Asked,
    /// Everything in the cgroup was killed.
    Killed,
}

/// Where the container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The supervisor waits for the network and the word to go.
    Created,
    /// The runtime makes the process.
    Starting {
        /// Nobody has seen this container run yet: a failure goes to who asked, not to the restart policy.
        first: bool,
        /// What a stop that came meanwhile asks for.
        then: Then,
    },
    /// The process runs.
    Running {
        /// Whose.
        pid: Pid,
        /// Since when.
        since: Moment,
    },
    /// The process is frozen.
    Paused {
        /// Whose.
        pid: Pid,
        /// Since when it has run.
        since: Moment,
    },
    /// The process was asked to leave.
    Stopping {
        /// Whose.
        pid: Pid,
        /// Since when it has run.
        since: Moment,
        /// How far the stop has come.
        stage: Stage,
        /// What follows.
        then: Then,
    },
    /// The process is gone; what it wrote last is still in the pipes.
    Draining {
        /// How it ended.
        exit: Exit,
        /// How long it ran.
        ran: Duration,
        /// What follows.
        then: Then,
    },
    /// The policy restarts it later.
    Backoff {
        /// How it ended last.
        exit: Exit,
        /// When it starts again.
        until: Moment,
    },
    /// Ended for good.
    Exited {
        /// How.
        exit: Exit,
    },
}

/// What of the launch plan decides transitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// May be changed while it runs.
    pub restart: RestartPolicy,
    /// Signal number of a polite stop.
    pub stop_signal: i32,
    /// `None`: wait for ever.
    pub stop_timeout: Option<Duration>,
    /// When to probe, and what a bad result leads to.
    pub health: Option<HealthRules>,
}

/// The whole state of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// What was agreed.
    pub rules: Rules,
    /// How often the policy restarted it.
    pub restarts: u32,
    /// The back-off used last; zero before the first.
    pub delay: Duration,
    /// A user stopped it (`unless-stopped` looks at it after a reboot).
    pub stopped_by_user: bool,
    /// A user sent the stop signal with `kill`: when the process ends, for whatever reason, it stays down.
    pub last_run: bool,
    /// Present when there is a probe and a process.
    pub health: Option<Health>,
}

impl State {
    /// Before anything happened.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            phase: Phase::Created,
            rules,
            restarts: 0,
            delay: Duration::ZERO,
            stopped_by_user: false,
            last_run: false,
            health: None,
        }
    }

    /// The pid, in the phases that have a process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Paused { pid, .. } | Phase::Stopping { pid, .. } => Some(pid),
            Phase::Created
            | Phase::Starting { .. }
            | Phase::Draining { .. }
            | Phase::Backoff { .. }
            | Phase::Exited { .. } => None,
        }
    }
}

/// What the driver waits for with a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The polite part of a stop is over.
    Stop,
    /// A process that ignores the stop signal has had its short grace.
    Grace,
    /// Killed processes should be gone by now.
    Kill,
    /// Output should be drained by now.
    Drain,
    /// The back-off is over.
    Backoff,
    /// The next probe is due.
    Probe,
    /// The probe that runs should be done by now.
    ProbeDeadline,
    /// The engine should have said the word by now.
    Launch,
}

impl Timer {
    /// All of them, in the order of [`Timer::index`].
    pub const ALL: [Self; 8] = [
        Self::Stop,
        Self::Grace,
        Self::Kill,
        Self::Drain,
        Self::Backoff,
        Self::Probe,
        Self::ProbeDeadline,
        Self::Launch,
    ];

    /// A slot number below `ALL.len()`.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Something happened, at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The engine has made the network: start.
    Go,
    /// The engine left without a word before that.
    EngineGone,
    /// The runtime made the process.
    Spawned(Pid),
    /// It could not.
    SpawnFailed(Exit),
    /// The container's first process ended.
    ProcessExited(Exit),
    /// Its output is drained.
    Drained,
    /// Somebody wants it down.
    Stop {
        /// Signal instead of the plan's.
        signal: Option<i32>,
        /// Time instead of the plan's; `Some(None)`: for ever.
        timeout: Option<Option<Duration>>,
        /// The process is pid 1 of its namespace and has no handler: the kernel will drop the signal.
        ignored: bool,
    },
    /// The host goes down: as `Stop`, but no user's wish.
    Shutdown,
    /// As `Stop`, then start again.
    Restart {
        /// See `Stop`.
        timeout: Option<Option<Duration>>,
        /// See `Stop`.
        ignored: bool,
    },
    /// A signal, no more.
    Kill(i32),
    /// Freeze.
    Pause,
    /// Thaw.
    Unpause,
    /// Another restart policy.
    SetPolicy(RestartPolicy),
    /// A deadline passed.
    Timer(Timer),
    /// The grace of an ignored stop signal passed, and this is how things are now.
    GraceOver {
        /// Still no handler.
        ignored: bool,
    },
    /// A probe ended; `true`: exit code 0.
    Probed(bool),
}

/// What the driver shall do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the process; answer with `Spawned` or `SpawnFailed`.
    Spawn,
    /// Signal the container's first process.
    Signal(i32),
    /// SIGKILL to everything in the container.
    KillAll,
    /// Freeze the cgroup.
    Freeze,
    /// Thaw it.
    Thaw,
    /// Read the rest of the output; answer with `Drained`.
    Drain,
    /// Close what is left of its streams, and those of attached clients.
    CloseStreams,
    /// Set a deadline, replacing the timer's former one.
    Arm(Timer, Moment),
    /// Forget a deadline.
    Disarm(Timer),
    /// Start a probe; answer with `Probed`.
    Probe,
    /// Kill the probe that runs, if one does.
    KillProbe,
    /// Write the live state.
    Persist,
    /// Tell those who wait for it.
    Notify(Milestone),
    /// What the container held that a successor may need.
    Undo,
    /// Everything else, and leave.
    Leave,
}

/// What clients can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// A process runs.
    Running,
    /// The first start failed, or a later one for good.
    StartFailed,
    /// A later start failed: who asked for it must not wait for what the policy makes of it.
    RestartFailed,
    /// A process ended, a policy may restart it.
    ProcessEnded,
    /// Ended for good.
    Down,
    /// Killed, and still there: the kernel cannot end it (uninterruptible).
    Undying,
}

/// An event that makes no sense in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no process (any more, or yet).
    #[error("container is not running")]
    NotRunning,
    /// It is frozen.
    #[error("container is paused")]
    Paused,
    /// It is not frozen.
    #[error("container is not paused")]
    NotPaused,
    /// A stop is under way.
    #[error("container is stopping")]
    Stopping,
    /// It already runs, or once did.
    #[error("container is already started")]
    AlreadyStarted,
    /// Late news of something that is over: to be ignored.
    #[error("event has no meaning any more")]
    Stale,
}
