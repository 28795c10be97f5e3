//! The words between a supervisor and its clients, both ends from this one file.
//!
//! A unix socket of type SEQPACKET at `<state>/<id>/socket` (mode 0600): one JSON document a message, file
//! descriptors beside it (SCM_RIGHTS). A client sends [`Call`]s, each with a number of its own choosing, and
//! gets [`Answer`]s with the same number: one, but for `Exec` with `wait` (two: started, exited). Calls are
//! independent: many may be open on one connection, and answers come when they are due.
//!
//! | call | descriptors sent | answer | descriptors received |
//! |---|---|---|---|
//! | `Go` (launch socket only) | see [`crate::launch::Go`] | `Running` / `Failed` | attached streams |
//! | `Stop`, `Restart` | | `Stopped` / `Running` | |
//! | `Kill`, `Pause`, `Unpause`, `Resize`, `SetRestart`, `SetLimits`, `SetMemory` | | `Done` | |
//! | `Wait` | | `Exited` | |
//! | `Attach` | | `Attached` | stdin (a pipe's write end, or the terminal), stdout, stderr (pipes' read ends), as asked |
//! | `Exec` | those of `ExecStdio::Passed` | `ExecStarted`, later `ExecExited` | the terminal, if asked |
//! | `ExecResize` | | `Done` | |
//! | `ExecInspect` | | `ExecState` | |
//! | `Network` | | `Network` | the container's network namespace |
//! | `SetNetwork` | sockets of services, then ports to be held | `Done` | |
//! | `Connect` | | `Connected` | a stream to the guest (`cata_guest::protocol`) |
//!
//! Before it leaves, a supervisor says goodbye on every connection: `Exited` with number [`FAREWELL`], so that a
//! `Wait` that crosses the end is answered too.
//!
//! Any of them may be answered by `Failed`. A client that sends what cannot be parsed, or does not read its
//! answers, is disconnected.

use cata_guest::report::BootTimes;
use cata_runtime::ExecRequest;
use cata_runtime::cgroup::CgroupPlan;
use cata_runtime::plan::WindowSize;
use serde::{Deserialize, Serialize};

use crate::journal::Entry;
use crate::launch::{Go, RestartPolicy, Undo};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "socket";
/// Longest message.
pub const LONGEST: usize = 192 * 1024;
/// Most descriptors with one message to a supervisor: a namespace, name service sockets and reserved ports.
pub const MOST_DESCRIPTORS: usize = 250;

/// The number of the goodbye; no call has it.
pub const FAREWELL: u32 = 0;

/// A numbered request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client, returned with the answers.
    pub number: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The network is ready: start. Only on the launch socket, once.
    Go {
        /// What was made meanwhile.
        go: Box<Go>,
        /// Streams wanted from the first byte on.
        attach: Option<Streams>,
    },
    /// End it, and answer when it has ended for good.
    Stop {
        /// Signal instead of the container's stop signal.
        signal: Option<i32>,
        /// Seconds instead of the container's stop timeout; -1: for ever.
        timeout: Option<i64>,
    },
    /// Stop and start again; answered when it runs.
    Restart {
        /// See `Stop`.
        timeout: Option<i64>,
    },
    /// Send a signal.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Unpause,
    /// Answer when it has ended.
    Wait {
        /// How far.
        until: Until,
    },
    /// Hand out streams.
    Attach {
        /// Which.
        streams: Streams,
    },
    /// Set the size of the container's terminal.
    Resize {
        /// To this.
        size: WindowSize,
    },
    /// Start one more process.
    Exec(Box<Exec>),
    /// Set the size of an exec session's terminal.
    ExecResize {
        /// Which session.
        id: String,
        /// To this.
        size: WindowSize,
    },
    /// How an exec session is.
    ExecInspect {
        /// Which session.
        id: String,
    },
    /// Speak to the guest of a virtual machine.
    Connect,
    /// Hand out the network namespace, for who changes what is in it.
    Network,
    /// Its networks have been changed: from now on this, in place of what [`Go`] said.
    SetNetwork(Box<NetworkChange>),
    /// The name by which events speak of it from now on.
    SetName {
        /// The name.
        name: String,
    },
    /// Another restart policy from now on.
    SetRestart {
        /// This.
        policy: RestartPolicy,
    },
    /// Other limits from now on, also for processes that are started again.
    SetLimits {
        /// For the same path; device rules in it are passed over.
        cgroup: Box<CgroupPlan>,
    },
    /// So much memory for the guest of a virtual machine, also when it is started again.
    SetMemory {
        /// At most what it was booted with.
        bytes: u64,
    },
}

/// What a supervisor has to know of the container's networks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetworkChange {
    /// How everything is taken away.
    pub undo: Vec<Undo>,
    /// What is told when it has ended.
    pub endings: Vec<Entry>,
    /// Opaque to the sandbox: the plan of the services.
    pub service_plan: Option<serde_json::Value>,
    /// How many of the descriptors are sockets of services; the others are ports to be held besides those that are.
    pub service_sockets: usize,
}

/// How far `Wait` waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The present process (or the next, between two) has ended.
    NextExit,
    /// It has ended for good.
    NotRunning,
    /// Everything it held is released; with `--rm`, it is gone.
    Removed,
}

/// Which streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; with a terminal there is none.
    pub stderr: bool,
}

impl Streams {
    /// All three.
    pub const ALL: Self = Self { stdin: true, stdout: true, stderr: true };
}

/// One more process in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// Names the session for `ExecResize` and `ExecInspect`; unique, chosen by the client.
    pub id: String,
    /// What is run.
    pub request: ExecRequest,
    /// Its standard streams.
    pub stdio: ExecStdio,
    /// Tell when it has ended.
    pub wait: bool,
}

/// Standard streams of an exec session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStdio {
    /// The client's own descriptors, in this order; what is not passed is `/dev/null`.
    Passed(Streams),
    /// A terminal (the request says so too), whose master side the client receives if it wants it.
    Terminal,
}

/// A numbered answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The call's.
    pub number: u32,
    /// What is answered.
    pub reply: Reply,
}

/// What can be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// It runs.
    Running {
        /// The container's first process as the host sees it.
        pid: i32,
        /// What the host could not give.
        withheld: Vec<String>,
        /// Which descriptors came along, in order.
        streams: Streams,
        /// What the boot of its virtual machine took, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootTimes>,
    },
    /// It has ended for good.
    Stopped {
        /// Of its process.
        exit_code: i32,
        /// The process was pid 1 without a handler for the stop signal, so the signal did nothing and the
        /// process was killed.
        ignored_signal: bool,
    },
    /// It has ended, as far as was asked.
    Exited {
        /// Of its process.
        exit_code: i32,
        /// Why it could not be started, if so.
        error: Option<String>,
        /// By the kernel's OOM killer.
        oom_killed: bool,
    },
    /// These streams came along.
    Attached {
        /// Which descriptors came along, in order.
        streams: Streams,
        /// There is a terminal: `stdin` is its master side.
        terminal: bool,
    },
    /// The session's process runs.
    ExecStarted {
        /// As the host sees it.
        pid: i32,
        /// The terminal came along.
        terminal: bool,
        /// What the host could not give.
        withheld: Vec<String>,
    },
    /// The session's process has ended.
    ExecExited {
        /// 128+n for signal n.
        exit_code: i32,
    },
    /// A stream to the guest came along.
    Connected,
    /// The network namespace came along.
    Network,
    /// How a session is.
    ExecState {
        /// As the host sees it.
        pid: i32,
        /// `None`: it runs.
        exit_code: Option<i32>,
    },
    /// It could not be done.
    Failed(Failure),
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// In words, with every cause.
    pub message: String,
    /// A way out, where one is known.
    pub hint: Option<String>,
    /// Docker's exit code for a failed start: 125, 126 or 127.
    pub exit_code: i32,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The container is in another state.
    State,
    /// It has no process yet, or none any more, or one that is being stopped.
    Ending,
    /// There is no such exec session.
    NotFound,
    /// The request makes no sense.
    Invalid,
    /// The process could not be made.
    Start,
    /// A bound was reached.
    Exhausted,
    /// The kernel cannot end the process.
    Undying,
    /// The system refused.
    System,
}

impl Failure {
    /// A failure that is not about starting a process.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, exit_code: 125 }
    }
}

impl From<crate::state::Rejected> for Failure {
    fn from(rejected: crate::state::Rejected) -> Self {
        use crate::state::Rejected;
        let kind = match rejected {
            Rejected::NotRunning | Rejected::Stopping => FailureKind::Ending,
            Rejected::Paused | Rejected::NotPaused | Rejected::AlreadyStarted | Rejected::Stale => {
                FailureKind::State
            }
        };
        Self::new(kind, rejected.to_string())
    }
}

impl From<cata_runtime::SpawnError> for Failure {
    fn from(error: cata_runtime::SpawnError) -> Self {
        use std::error::Error as _;
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        let kind = match error {
            cata_runtime::SpawnError::NotRunning => FailureKind::Ending,
            _ => FailureKind::Start,
        };
        Self { kind, message, hint: error.hint().map(str::to_owned), exit_code: error.exit_code() }
    }
}
