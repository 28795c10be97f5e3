//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Controller;

/// Why a cgroup could not be planned, made or used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// A line of /proc that could not be understood.
    #[error("cannot understand `{line}` of {file}")]
    Proc {
        /// The file.
        file: &'static str,
        /// The line.
        line: String,
    },
    /// `slice:prefix:name`.
    #[error("cgroup path `{0}` is for the systemd driver, which is not the one in use")]
    Systemd(String),
    /// systemd refused, or cannot be talked to.
    #[error("systemd: {what}")]
    Manager {
        /// What it said.
        what: String,
    },
    /// An annotation that is no property.
    #[error("`{value}` is no value for systemd's property `{name}`")]
    Property {
        /// The property.
        name: String,
        /// As given.
        value: String,
    },
    /// An annotation with a property that the runtime sets itself.
    #[error("systemd's property `{0}` is the runtime's to set")]
    OwnProperty(String),
    /// Empty, or with `..` in it.
    #[error("cgroup path `{path}` {why}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A limit whose controller this machine lacks.
    #[error("{limit} needs the cgroup controller `{controller}`, which this machine does not offer")]
    NoController {
        /// What was asked for.
        limit: String,
        /// The controller.
        controller: Controller,
    },
    /// A limit that does not exist in this version of cgroups.
    #[error("{limit} is not supported on cgroup {version}")]
    NotSupported {
        /// What was asked for.
        limit: String,
        /// `v1` or `v2`.
        version: &'static str,
    },
    /// A value that makes no sense.
    #[error("invalid {limit} `{value}`: {why}")]
    Value {
        /// What was asked for.
        limit: &'static str,
        /// As given.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The kernel refused a limit.
    #[error("cannot set {limit}: writing `{value}` to {}", path.display())]
    Limit {
        /// What was asked for.
        limit: String,
        /// What was written.
        value: String,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A controller could not be handed down the tree.
    #[error("cannot enable the cgroup controllers `{controllers}` in {}", path.display())]
    Enable {
        /// As written, `+memory +pids`.
        controllers: String,
        /// The `cgroup.subtree_control` file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device filter was refused.
    #[error("cannot install the device filter of {}", path.display())]
    Devices {
        /// The cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There are processes in it already.
    #[error("cgroup {} is in use: there are processes in it", .0.display())]
    InUse(PathBuf),
    /// It is not there.
    #[error("cgroup {} does not exist", .0.display())]
    Missing(PathBuf),
    /// Something did not come to an end.
    #[error("cgroup {}: {what} did not end within {within:?}", path.display())]
    TimedOut {
        /// The cgroup.
        path: PathBuf,
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
    /// Any other call.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `create`, `read`, `write`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// Whether somebody with more rights could do it.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let (Self::Limit { source, .. }
        | Self::Enable { source, .. }
        | Self::Devices { source, .. }
        | Self::Io { source, .. }) = self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted => Some("mount one: mount -t cgroup2 none /sys/fs/cgroup"),
            Self::Systemd(_) => {
                Some("use --systemd-cgroup, or a path such as /catamaran instead of slice:prefix:name")
            }
            Self::NoController { .. } => {
                Some("leave the limit out, or enable the controller on the kernel's command line")
            }
            Self::Enable { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => Some(
                "processes live in that cgroup itself: move them into a child cgroup of their own, or choose \
                 another --cgroup-parent",
            ),
            Self::Limit { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Some("the processes use more than the new limit already")
            }
            Self::Limit { source, .. } | Self::Io { source, .. } | Self::Enable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("only root, or the owner of a delegated cgroup, may do this")
            }
            _ => None,
        }
    }
}
