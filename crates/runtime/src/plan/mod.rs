//! What the runtime is going to do, as data: everything is decided here and nothing has happened yet.
//!
//! A [`Plan`] is written by whoever knows images, flags and the host, and performed by a supervisor that
//! knows none of them. It holds no descriptor, so a container can be started again from the same plan.

mod build;
mod device;
mod error;
mod exec;
mod mount;
mod namespace;
mod process;
mod schedule;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use build::{Host, Options, hook_list, plan};
pub use device::{Device, DeviceKind};
pub use error::PlanError;
pub use exec::{ExecPlan, ExecRequest};
pub use mount::{Bind, IdMap, Mount, MountKind, Propagation, mount_options};
pub use namespace::{IdMapping, Namespace, NamespaceKind, NamespaceSource, NetDevice};
pub use process::{Capabilities, Listener, Process, Rlimit, WindowSize, process};
pub use schedule::{IoPriority, MemoryPolicy, Scheduler, TimeOffset, personality};

use crate::cgroup::CgroupPlan;
use crate::hook::Hooks;
use crate::user::UserSpec;

/// Everything needed to make a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Namespaces that are not the host's.
    pub namespaces: Vec<Namespace>,
    /// Set only with a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// See `uid_mappings`.
    pub gid_mappings: Vec<IdMapping>,
    /// Set in a new UTS namespace.
    pub hostname: Option<String>,
    /// See `hostname`.
    pub domainname: Option<String>,
    /// Where the root file system comes from.
    pub root: Root,
    /// Remount the root read-only at the end.
    pub readonly_root: bool,
    /// How mount events travel between the container's root and the host.
    pub root_propagation: Propagation,
    /// In order.
    pub mounts: Vec<Mount>,
    /// SELinux context of the file systems made for the container.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Nodes in `/dev`.
    pub devices: Vec<Device>,
    /// Network devices of the host that move into the container's network.
    #[serde(default)]
    pub net_devices: Vec<NetDevice>,
    /// Symbolic links to make: (path inside, what it points to).
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Hidden behind `/dev/null` or an empty directory.
    pub masked_paths: Vec<PathBuf>,
    /// Remounted read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// `net.ipv4.ip_forward` = `1` and the like.
    pub sysctls: Vec<(String, String)>,
    /// To be made with `cgroup::create` before `spawn`, and handed to it.
    pub cgroup: Option<CgroupPlan>,
    /// PID 1 is the runtime's own reaper, and the payload its child.
    pub init: bool,
    /// Programs that the new process runs on its way.
    #[serde(default)]
    pub hooks: Hooks,
    /// Clocks of a new time namespace.
    #[serde(default)]
    pub time_offsets: Vec<TimeOffset>,
    /// `PER_*`.
    #[serde(default)]
    pub personality: Option<u32>,
    /// Where memory comes from.
    #[serde(default)]
    pub memory_policy: Option<MemoryPolicy>,
    /// The process itself.
    pub process: Process,
}

/// Where a root file system comes from. It is mounted in the container's own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// An overlay of unpacked layers.
    Overlay {
        /// Read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// Receives changes; with `work`, absent for a root that can never be written.
        upper: Option<PathBuf>,
        /// Overlay's scratch directory, on the same file system as `upper`.
        work: Option<PathBuf>,
        /// Further options, as `metacopy=on` or `volatile`.
        options: Vec<String>,
        /// In a user namespace its files belong to whom they belong on disk; else their owners are mapped.
        #[serde(default)]
        as_on_disk: bool,
    },
    /// A directory, taken as it is.
    Path(PathBuf),
}

impl Plan {
    /// The namespace of this kind, if it is not the host's.
    #[must_use]
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&NamespaceSource> {
        self.namespaces.iter().find(|n| n.kind == kind).map(|n| &n.source)
    }

    /// Whether a namespace of this kind is made for the container.
    #[must_use]
    pub fn makes(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind) == Some(&NamespaceSource::New)
    }

    /// Who the process runs as.
    #[must_use]
    pub fn user(&self) -> &UserSpec {
        &self.process.user
    }
}
