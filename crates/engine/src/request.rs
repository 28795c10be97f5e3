//! What is asked of the engine: one structure a verb, validated by shape, free of flags and text.
//!
//! The command line and the API both fill these; nothing here has looked at the host yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

pub use cata_network::request::{CreateNetwork, EndpointRequest, Link, PortRequest, Transport};
pub use cata_sandbox::launch::{Isolation, LogPlan, OnUnhealthy, RestartPolicy};
use cata_spec::Name;
use serde::{Deserialize, Serialize};

pub use crate::plan::users::Users;
pub use cata_runtime::plan::IdMapping;

/// `create` and `run`: everything a user can say about a new container.
///
/// Empty means "what the image says, or else Docker's default".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The image as typed.
    pub image: String,
    /// The command after the image.
    pub command: Vec<String>,
    /// `--entrypoint`; `Some(vec![])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `--name`; made up when absent.
    pub name: Option<Name>,
    /// `--platform`, as typed (`linux/arm64/v8`).
    pub platform: Option<String>,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `-e` and `--env-file`, in order; a value of `None` takes the caller's (already resolved by the door).
    pub env: Vec<(String, String)>,
    /// `--label` and `--label-file`.
    pub labels: BTreeMap<String, String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `-h`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// `-i` in the foreground: the first client's end of input closes it.
    pub stdin_once: bool,
    /// Which streams the creator attaches (for `inspect`: AttachStdin/out/err).
    pub attach: Attach,
    /// `--init`.
    pub init: bool,
    /// `--rm`.
    pub auto_remove: bool,
    /// Killed when whoever started it hangs up: steps of builds.
    #[serde(default)]
    pub leashed: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// `--isolation`.
    pub isolation: Isolation,
    /// `--vmm`: what runs a virtual machine.
    #[serde(default)]
    pub monitor: MonitorRequest,
    /// `--kernel`: a virtual machine's kernel by name; `None`: the default one.
    #[serde(default)]
    pub kernel: Option<String>,
    /// `--cap-add`, as typed (`NET_ADMIN`, `CAP_NET_ADMIN`, `ALL`).
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security: Security,
    /// `-v`, `--mount`, `--tmpfs`.
    pub mounts: Vec<MountRequest>,
    /// Texts that are files in it from the beginning; on no record, for they may be secrets.
    #[serde(skip)]
    pub files: Vec<FileRequest>,
    /// `--volumes-from`.
    #[serde(default)]
    pub volumes_from: Vec<Lender>,
    /// `--device`.
    pub devices: Vec<DeviceRequest>,
    /// `--device-cgroup-rule`.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// `--device vendor.com/class=name`.
    #[serde(default)]
    pub device_names: Vec<DeviceName>,
    /// `--gpus`.
    #[serde(default)]
    pub gpus: Vec<GpuRequest>,
    /// `--network`.
    pub network: NetworkMode,
    /// `-p`.
    pub ports: Vec<PortRequest>,
    /// `--expose` as (port, "tcp").
    pub expose: Vec<String>,
    /// `-P`.
    pub publish_all: bool,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host` as (name, address or `host-gateway`).
    pub extra_hosts: Vec<(String, String)>,
    /// `--pid`.
    pub pid: NamespaceMode,
    /// `--ipc`.
    pub ipc: NamespaceMode,
    /// `--uts`.
    pub uts: NamespaceMode,
    /// `--cgroupns`.
    pub cgroupns: NamespaceMode,
    /// `--userns`, `--uidmap`, `--gidmap`.
    #[serde(default)]
    pub userns: UserNamespace,
    /// `--memory`, `--cpus`, `--pids-limit`, …
    pub resources: Resources,
    /// `--ulimit` as (name, soft, hard).
    pub ulimits: Vec<Ulimit>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--stop-signal`, as typed.
    pub stop_signal: Option<String>,
    /// `--stop-timeout`, seconds; -1: for ever.
    pub stop_timeout: Option<i64>,
    /// `--health-*`.
    pub health: HealthRequest,
    /// `--log-driver`, `--log-opt`.
    pub log: Option<LogPlan>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `machine create`: it is a machine, with this disk.
    #[serde(default)]
    pub machine: Option<MachineDisk>,
}

/// The disk of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDisk {
    /// Its size.
    pub bytes: u64,
}

impl MachineDisk {
    /// The name by which the guest knows it.
    pub(crate) const SERIAL: &'static str = "cata-disk";
}

/// `--userns`, `--uidmap`, `--gidmap`: whose ids a container's are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// The host's own.
    #[default]
    Host,
    /// A range that nobody else has.
    Auto {
        /// How many ids; `None`: as many as images use.
        size: Option<u32>,
    },
    /// The caller's ids are the same inside, or these.
    KeepId {
        /// Another user id.
        uid: Option<u32>,
        /// Another group id.
        gid: Option<u32>,
    },
    /// The caller's ids do not exist inside.
    NoMap,
    /// As said.
    Map(Users),
}

/// `--vmm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MonitorRequest {
    /// KVM where it works, else QEMU.
    #[default]
    Auto,
    /// The kernel's virtual machines.
    Kvm,
    /// Software emulation.
    Qemu,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Pull when absent.
    #[default]
    Missing,
    /// Pull always.
    Always,
    /// Never pull.
    Never,
}

/// Streams attached by the creator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=`.
    pub seccomp: SeccompRequest,
    /// `systempaths=unconfined`.
    pub unconfined_paths: bool,
    /// `apparmor=…`, kept for `inspect`; the host says whether it can.
    pub apparmor: Option<String>,
    /// `label=…`, likewise.
    pub label: Vec<String>,
}

/// `--security-opt seccomp=`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompRequest {
    /// Docker's default profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON form (its text).
    Profile(String),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// What is mounted.
    pub source: MountSource,
    /// Where, absolute, inside.
    pub target: String,
    /// `:ro`.
    pub read_only: bool,
}

/// `--volumes-from`: whose volumes and binds a container has as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lender {
    /// The container, as typed.
    pub container: String,
    /// `:ro`.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A host path.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// `-v` makes a missing directory; `--mount` does not.
        create: bool,
        /// `rprivate` (default), `private`, `rshared`, `shared`, `rslave`, `slave`.
        propagation: Option<String>,
        /// Submounts too (default), or not.
        recursive: bool,
    },
    /// A volume; `None` makes an anonymous one.
    Volume {
        /// Its name.
        name: Option<Name>,
        /// `volume-subpath`.
        subpath: Option<String>,
        /// `:nocopy`.
        no_copy: bool,
    },
    /// A tmpfs.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: Option<u32>,
        /// Further options as typed (`noexec`, `uid=…`).
        options: Vec<String>,
    },
}

/// `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// On the host.
    pub host: PathBuf,
    /// Inside.
    pub container: PathBuf,
    /// A subset of `rwm`.
    pub access: String,
}

/// `--device-cgroup-rule`: devices that may be used without there being a node for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None`: any.
    pub major: Option<u32>,
    /// `None`: any.
    pub minor: Option<u32>,
    /// A subset of `rwm`.
    pub access: String,
}

/// `vendor.com` and `class`: letters, digits, `-`, `_` and `.`, with a letter first and no sign last.
pub(crate) fn is_kind(vendor: &str, class: &str) -> bool {
    let good = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    good(vendor) && good(class)
}

/// A device by the name that its vendor's description gives it: `vendor.com/class=name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl DeviceName {
    /// A name of that form.
    ///
    /// # Errors
    /// In words.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid device name '{text}': the form is vendor.com/class=name");
        let (kind, name) = text.split_once('=').ok_or_else(wrong)?;
        let (vendor, class) = kind.split_once('/').ok_or_else(wrong)?;
        let good = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        if is_kind(vendor, class) && good && !name.is_empty() {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong())
        }
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

/// `--gpus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRequest {
    /// `driver=`: `nvidia` or `amd`; `None`: whose devices are described.
    pub driver: Option<String>,
    /// Which.
    pub gpus: Gpus,
}

/// Which graphics processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpus {
    /// `all`.
    All,
    /// The first of them.
    Count(u32),
    /// `device=`: indices or ids.
    Named(Vec<String>),
}

/// The wish of who asks for no network.
pub(crate) fn default_endpoint() -> EndpointRequest {
    EndpointRequest::new(Name::parse(cata_network::DEFAULT).expect("a valid name"))
}

/// `--network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Networks to join; empty: the default bridge.
    Networks(Vec<EndpointRequest>),
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// Another container's, as typed.
    Container(String),
}

/// `--pid`, `--ipc`, `--uts`, `--cgroupns`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, as typed.
    Container(String),
    /// A new one that others may join (`--ipc shareable`).
    Shareable,
    /// A new one without /dev/shm (`--ipc none`).
    None,
}

/// Limits; `None`: not limited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    /// Memory plus swap, bytes; -1: unlimited.
    pub memory_swap: Option<i64>,
    /// Billionths of a CPU (`--cpus 1.5` = 1,500,000,000).
    pub nano_cpus: Option<u64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// `0-3,6`.
    pub cpuset_cpus: Option<String>,
    /// `0-1`.
    pub cpuset_mems: Option<String>,
    /// Processes; -1: unlimited.
    pub pids: Option<i64>,
    /// 10-1000.
    pub blkio_weight: Option<u16>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--memory-swappiness`, 0-100.
    #[serde(default)]
    pub swappiness: Option<u64>,
    /// `--device-read-bps` and the like.
    #[serde(default)]
    pub block: Vec<BlockLimit>,
}

/// A limit of what is read from or written to one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockLimit {
    /// On the host.
    pub device: PathBuf,
    /// What is limited.
    pub kind: BlockLimitKind,
    /// Bytes or operations a second, or the weight.
    pub value: u64,
}

/// What a [`BlockLimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockLimitKind {
    /// `--device-read-bps`.
    ReadBytes,
    /// `--device-write-bps`.
    WriteBytes,
    /// `--device-read-iops`.
    ReadOperations,
    /// `--device-write-iops`.
    WriteOperations,
    /// `--blkio-weight-device`, 10-1000.
    Weight,
}

impl BlockLimitKind {
    /// The flag that asks for it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::ReadBytes => "--device-read-bps",
            Self::WriteBytes => "--device-write-bps",
            Self::ReadOperations => "--device-read-iops",
            Self::WriteOperations => "--device-write-iops",
            Self::Weight => "--blkio-weight-device",
        }
    }
}

/// `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, …
    pub name: String,
    /// -1: unlimited.
    pub soft: i64,
    /// -1: unlimited.
    pub hard: i64,
}

/// `--health-*`, laid over the image's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthRequest {
    /// `--no-healthcheck`.
    pub disabled: bool,
    /// `--health-cmd`.
    pub command: Option<String>,
    /// Program and arguments, no shell between: what only the API can say.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Nanoseconds.
    pub interval: Option<u64>,
    /// Nanoseconds.
    pub timeout: Option<u64>,
    /// Nanoseconds.
    pub start_period: Option<u64>,
    /// Nanoseconds.
    pub start_interval: Option<u64>,
    /// Failures in a row.
    pub retries: Option<u32>,
    /// `--on-unhealthy` (also spelled `--health-on-failure`).
    pub on_unhealthy: OnUnhealthy,
}

impl CreateRequest {
    /// A request for `image` with every default.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            command: Vec::new(),
            entrypoint: None,
            name: None,
            platform: None,
            pull: PullPolicy::Missing,
            env: Vec::new(),
            labels: BTreeMap::new(),
            workdir: None,
            user: None,
            groups: Vec::new(),
            hostname: None,
            domainname: None,
            tty: false,
            open_stdin: false,
            stdin_once: false,
            attach: Attach::default(),
            init: false,
            auto_remove: false,
            leashed: false,
            read_only: false,
            privileged: false,
            isolation: Isolation::Process,
            monitor: MonitorRequest::Auto,
            kernel: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            security: Security::default(),
            mounts: Vec::new(),
            files: Vec::new(),
            volumes_from: Vec::new(),
            devices: Vec::new(),
            device_rules: Vec::new(),
            device_names: Vec::new(),
            gpus: Vec::new(),
            network: NetworkMode::Networks(Vec::new()),
            ports: Vec::new(),
            expose: Vec::new(),
            publish_all: false,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            extra_hosts: Vec::new(),
            pid: NamespaceMode::Private,
            ipc: NamespaceMode::Private,
            uts: NamespaceMode::Private,
            cgroupns: NamespaceMode::Private,
            userns: UserNamespace::Host,
            resources: Resources::default(),
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            shm_size: None,
            oom_score_adj: None,
            cgroup_parent: None,
            restart: RestartPolicy::No,
            stop_signal: None,
            stop_timeout: None,
            health: HealthRequest::default(),
            log: None,
            annotations: BTreeMap::new(),
            machine: None,
        }
    }
}

/// A file of a text.
#[derive(Clone, PartialEq, Eq)]
pub struct FileRequest {
    /// Where, absolute.
    pub target: String,
    /// What is in it.
    pub content: String,
    /// Whose it is.
    pub uid: u32,
    /// Likewise.
    pub gid: u32,
    /// What may be done with it.
    pub mode: u32,
}

/// Without its content.
impl std::fmt::Debug for FileRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRequest").field("target", &self.target).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::CreateRequest;

    /// A request with every default, for the planners' tests.
    pub(crate) fn request() -> CreateRequest {
        CreateRequest::new("image")
    }
}
