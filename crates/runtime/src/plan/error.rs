//! Why a specification cannot be planned.

use std::path::PathBuf;

/// Why a specification cannot be planned. Nothing has happened yet.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A part of the document that a Linux container must have.
    #[error("the specification has no `{0}`")]
    Missing(&'static str),
    /// Understood, and not offered.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A path that must be absolute.
    #[error("{what} path `{path}` is not absolute")]
    NotAbsolute {
        /// What the path is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The same kind twice.
    #[error("namespace `{0}` is asked for twice")]
    NamespaceTwice(&'static str),
    /// Its users are not those of the mount namespace.
    #[error("a container with a user namespace needs a mount namespace too")]
    HostMountNamespace,
    /// A host name where it would be the host's.
    #[error("a {0} cannot be set without a UTS namespace of its own")]
    NotOwnUts(&'static str),
    /// Ids cannot be mapped as asked.
    #[error("user namespace: {0}")]
    Mapping(&'static str),
    /// A mount that makes no sense.
    #[error("mount `{target}`: {reason}")]
    Mount {
        /// Where it should be mounted.
        target: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A kernel parameter that is not the container's to set.
    #[error("sysctl `{name}`: {reason}")]
    Sysctl {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A network device that cannot be moved.
    #[error("network device `{name}` {reason}")]
    NetDevice {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// A cgroup or limit that cannot be had.
    #[error("cannot plan the cgroup")]
    Cgroup(#[source] crate::cgroup::CgroupError),
    /// A system call filter that cannot be compiled.
    #[error("cannot compile the seccomp profile")]
    Seccomp(#[source] crate::seccomp::SeccompError),
    /// A value with a character that cannot be passed to the kernel.
    #[error("{0} contains a NUL character")]
    Nul(&'static str),
    /// Values that do not fit together.
    #[error("scheduler: {0}")]
    Scheduler(String),
    /// A list of CPUs or nodes.
    #[error("`{0}` is not a list like 0-3,7")]
    List(String),
    /// A clock that cannot be set.
    #[error("time offset of `{0}`: only `monotonic` and `boottime` can be set")]
    Clock(String),
    /// A hook that cannot be run.
    #[error("hook `{path}`: {reason}")]
    Hook {
        /// Its program.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device of an unknown kind.
    #[error("device `{0}`: unknown kind")]
    Device(PathBuf),
}
