//! Why a process could not be started, in Docker's words where Docker has some.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::user::UserError;

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Stage {
    Handshake,
    Clone,
    Cgroup,
    IdMapping,
    Owners,
    NetDevice,
    JoinNamespace,
    MakeNamespace,
    MountSource,
    Root,
    MountTarget,
    Mount,
    MountAttributes,
    Device,
    Link,
    MaskPath,
    ReadonlyPath,
    Sysctl,
    Terminal,
    PivotRoot,
    Hostname,
    UserDatabase,
    WorkingDirectory,
    Rlimit,
    Identity,
    Capabilities,
    Seccomp,
    StandardStreams,
    Reaper,
    Schedule,
    Label,
    Hook,
    Gate,
    Execute,
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Self::Handshake => "handshake with the new process",
            Self::Clone => "clone",
            Self::Cgroup => "join cgroup",
            Self::IdMapping => "map user and group ids",
            Self::Owners => "map the owners of files in",
            Self::NetDevice => "move network device",
            Self::JoinNamespace => "join namespace",
            Self::MakeNamespace => "make namespace",
            Self::MountSource => "mount source",
            Self::Root => "mount root file system",
            Self::MountTarget => "mount target",
            Self::Mount => "mount",
            Self::MountAttributes => "set attributes of mount",
            Self::Device => "make device",
            Self::Link => "make link",
            Self::MaskPath => "mask path",
            Self::ReadonlyPath => "make path read-only",
            Self::Sysctl => "set sysctl",
            Self::Terminal => "open terminal",
            Self::PivotRoot => "change root",
            Self::Hostname => "set host name",
            Self::UserDatabase => "read",
            Self::WorkingDirectory => "change to working directory",
            Self::Rlimit => "set limit",
            Self::Identity => "change user and group",
            Self::Capabilities => "set capabilities",
            Self::Seccomp => "load seccomp filter",
            Self::StandardStreams => "set up standard streams",
            Self::Reaper => "start init",
            Self::Schedule => "set scheduling of the process:",
            Self::Label => "set security label",
            Self::Hook => "run hook",
            Self::Gate => "wait to be started",
            Self::Execute => "execute",
        }
    }
}

/// Why a process could not be started. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A system call failed.
    #[error("{}", Words { stage: *stage, subject, detail: detail.as_deref() })]
    System {
        /// While doing what.
        stage: Stage,
        /// To what: a path, a name; empty where the stage says it all.
        subject: String,
        /// What a file system itself had to say.
        detail: Option<String>,
        /// Why.
        source: io::Error,
    },
    /// No program of that name in any directory of `PATH`.
    #[error("exec: \"{0}\": executable file not found in $PATH")]
    NotInPath(String),
    /// The named file does not exist.
    #[error("exec: \"{0}\": stat {0}: no such file or directory")]
    NoProgram(String),
    /// The file exists, but what it needs to run (its interpreter) does not.
    #[error("exec: \"{0}\": no such file or directory (its interpreter is missing)")]
    NoInterpreter(String),
    /// The file must not be executed.
    #[error("exec: \"{0}\": permission denied")]
    NotExecutable(String),
    /// A directory.
    #[error("exec: \"{0}\": is a directory")]
    Directory(String),
    /// Not a program for this machine, nor a script with `#!`.
    #[error("exec: \"{0}\": exec format error")]
    Format(String),
    /// The user is not known in the container.
    #[error("cannot resolve the user")]
    User(#[source] UserError),
    /// A working directory that is something else.
    #[error("working directory `{}` is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The container has ended.
    #[error("the container is not running")]
    NotRunning,
    /// It died without a word: killed while being set up, by the OOM killer for example.
    #[error("the new process was killed while being set up (status {0})")]
    Died(i32),
    /// A hook failed: which, and how.
    #[error("{0}")]
    Hook(String),
    /// This kernel does not have it, and the specification forbids to go on without.
    #[error("{0}")]
    NotHere(String),
    /// A combination that this runtime does not do.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

struct Words<'a> {
    stage: Stage,
    subject: &'a str,
    detail: Option<&'a str>,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage.words())?;
        if !self.subject.is_empty() {
            write!(f, " `{}`", self.subject)?;
        }
        match self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl SpawnError {
    /// What Docker's client exits with: 127 when there is no such program, 126 when it cannot be invoked,
    /// 125 for everything that is not the program's fault.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotInPath(_) | Self::NoProgram(_) | Self::NoInterpreter(_) => 127,
            Self::NotExecutable(_) | Self::Directory(_) | Self::Format(_) => 126,
            _ => 125,
        }
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Format(_) => {
                Some("the program is for another architecture, or a script without a `#!` line")
            }
            Self::NoInterpreter(_) => {
                Some("check the script's `#!` line, or whether the program's dynamic loader is in the image")
            }
            Self::System { stage: Stage::Owners, .. } => Some(
                "a user namespace needs Linux 5.19 and a file system with idmapped mounts, as ext4, xfs and btrfs \
                 have, and tmpfs since 6.3; `--userns host` needs neither",
            ),
            Self::System { stage: Stage::Identity, source, .. }
                if source.kind() == io::ErrorKind::InvalidInput =>
            {
                Some(
                    "an id that the user namespace does not map does not exist in it: map it, or use another user",
                )
            }
            Self::System { stage: Stage::MountSource, .. } => Some("the source of a bind mount must exist"),
            _ => None,
        }
    }
}

/// For `map_err` on the caller's side.
pub(crate) fn at(stage: Stage, subject: impl ToString) -> impl FnOnce(Errno) -> SpawnError {
    move |errno| SpawnError::System {
        stage,
        subject: subject.to_string(),
        detail: None,
        source: io::Error::from(errno),
    }
}
