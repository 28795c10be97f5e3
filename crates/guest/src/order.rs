//! What a hypervisor process (`cata-vmm`) is told: data, written by the engine, never seen by the guest.

use std::path::PathBuf;

use cata_runtime::cgroup::CgroupPlan;
use cata_runtime::plan::{Plan, Root};
use serde::{Deserialize, Serialize};

use crate::protocol::Interface;

/// What `cata-vmm` reads of the supervisor's plan: other fields are not its business.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errand {
    /// The container's process, with the guest's paths.
    pub plan: Plan,
    /// The machine.
    pub vm: Order,
}

/// A machine to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The program `cata-vmm`.
    pub program: PathBuf,
    /// What runs it.
    pub monitor: Monitor,
    /// The guest's kind of processor; KVM runs the host's only.
    pub processor: Processor,
    /// Virtual processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// An empty directory to put the container's tree together in; seen by nobody else.
    pub stage: PathBuf,
    /// The container's root on the host.
    pub root: Root,
    /// Trees and files of the host that the container sees, by number.
    pub shares: Vec<Share>,
    /// Disks: files of the host, with the names by which the guest knows them.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The container's cgroup in the guest.
    pub cgroup: CgroupPlan,
    /// Every device node of the guest is the container's.
    pub all_devices: bool,
    /// The user that it becomes.
    pub uid: u32,
}

/// What runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The kernel's virtual machines, in this process.
    Kvm,
    /// QEMU, which needs none.
    Qemu,
}

/// A kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Monitor {
    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

/// A disk that the guest may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Absolute.
    pub source: PathBuf,
    /// At most 20 letters.
    pub serial: String,
}

/// A tree or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Absolute.
    pub source: PathBuf,
    /// A directory that others write to, which `source` is in: links in it lead to nothing outside.
    #[serde(default)]
    pub beneath: Option<PathBuf>,
    /// With everything that is mounted below it.
    pub recursive: bool,
    /// The guest cannot write whatever it tries.
    pub read_only: bool,
}

/// What is only known when the network is made. Descriptors travel beside it: the kernel, `archives` archives of
/// its first file system, a tap device an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Links {
    /// How many archives.
    pub archives: usize,
    /// The guest's interfaces.
    pub interfaces: Vec<Interface>,
    /// Whether a name service answers at 127.0.0.11:53.
    pub names: bool,
    /// Whether any interface speaks IPv6.
    pub ipv6: bool,
}
