//! The flags of `create` and `run` that describe the container, in Docker's names.
//!
//! Only what was typed is here; [`super::convert`] makes a request of it. A flag of Docker's that is not in
//! this structure is answered by `unsupported.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cata_engine::request::{
    BlockLimit, DeviceRule, GpuRequest, IdMapping, Isolation, Lender, Link, MonitorRequest, MountRequest,
    NamespaceMode, OnUnhealthy, PortRequest, RestartPolicy, Ulimit, UserNamespace,
};
use clap::Args;

use crate::parse;
use crate::parse::device::Device;

#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
    #[command(flatten)]
    pub(crate) isolation: IsolationOptions,
    #[command(flatten)]
    pub(crate) resources: ResourceOptions,
    #[command(flatten)]
    pub(crate) storage: StorageOptions,
    #[command(flatten)]
    pub(crate) life: LifeOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Connect to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "list", value_parser = parse::stream::parse)]
    pub(crate) attach: Vec<parse::stream::Stream>,
    /// Override the image's entry point
    #[arg(long, value_name = "string")]
    pub(crate) entrypoint: Option<String>,
    /// Set an environment variable (NAME alone takes the caller's)
    #[arg(short, long, value_name = "list")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "list")]
    pub(crate) env_file: Vec<String>,
    /// Set the container's host name
    #[arg(short = 'h', long, value_name = "string")]
    pub(crate) hostname: Option<String>,
    /// Set the container's NIS domain name
    #[arg(long, value_name = "string")]
    pub(crate) domainname: Option<String>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep standard input open, even when nobody is attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User or uid, with an optional group (user[:group])
    #[arg(short, long, value_name = "string")]
    pub(crate) user: Option<String>,
    /// Further groups of the process
    #[arg(long, value_name = "list")]
    pub(crate) group_add: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    pub(crate) workdir: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "list")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "list")]
    pub(crate) label_file: Vec<String>,
    /// Add an annotation for the runtime
    #[arg(long, value_name = "map")]
    pub(crate) annotation: Vec<String>,
    /// Give the container a name
    #[arg(long, value_name = "string")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkOptions {
    /// Connect to a network (a name, none, host, container:NAME)
    #[arg(long, alias = "net", value_name = "network")]
    pub(crate) network: Vec<String>,
    /// Add a name by which others on the network find the container
    #[arg(long, alias = "net-alias", value_name = "list")]
    pub(crate) network_alias: Vec<String>,
    /// Add a name for another container, for this one alone (container[:alias])
    #[arg(long, value_name = "list", value_parser = parse::network::link)]
    pub(crate) link: Vec<Link>,
    /// Set the IPv4 address
    #[arg(long, value_name = "ip")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Set the IPv6 address
    #[arg(long, value_name = "ip")]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Set the MAC address
    #[arg(long, value_name = "string", value_parser = parse::network::mac)]
    pub(crate) mac_address: Option<[u8; 6]>,
    /// Publish a port on the host ([ip:][host:]container[/protocol])
    #[arg(short, long, value_name = "list", value_parser = publish)]
    pub(crate) publish: Vec<Ports>,
    /// Publish every exposed port on a free port of the host
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Declare a port without publishing it
    #[arg(long, value_name = "list", value_parser = expose)]
    pub(crate) expose: Vec<Exposed>,
    /// Set a name server
    #[arg(long, value_name = "list")]
    pub(crate) dns: Vec<IpAddr>,
    /// Set a resolver option
    #[arg(long, visible_alias = "dns-opt", value_name = "list")]
    pub(crate) dns_option: Vec<String>,
    /// Set a search domain
    #[arg(long, value_name = "list")]
    pub(crate) dns_search: Vec<String>,
    /// Add a name to /etc/hosts (name:ip)
    #[arg(long, value_name = "list", value_parser = parse::host::parse)]
    pub(crate) add_host: Vec<(String, String)>,
}

/// What one `-p` asks: several ports when it is a range.
#[derive(Debug, Clone)]
pub(crate) struct Ports(pub(crate) Vec<PortRequest>);

/// What one `--expose` declares.
#[derive(Debug, Clone)]
pub(crate) struct Exposed(pub(crate) Vec<String>);

pub(crate) fn publish(text: &str) -> parse::Parsed<Ports> {
    parse::port::parse(text).map(Ports)
}

fn expose(text: &str) -> parse::Parsed<Exposed> {
    parse::port::exposed(text).map(Exposed)
}

#[derive(Debug, Args)]
pub(crate) struct IsolationOptions {
    /// Add a Linux capability
    #[arg(long, value_name = "list")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a Linux capability
    #[arg(long, value_name = "list")]
    pub(crate) cap_drop: Vec<String>,
    /// Give the container (nearly) everything the host may do
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Set a security option (no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined, …)
    #[arg(long, value_name = "list")]
    pub(crate) security_opt: Vec<String>,
    /// Share a process namespace (host, container:NAME)
    #[arg(long, value_name = "string", value_parser = parse::namespace::pid)]
    pub(crate) pid: Option<NamespaceMode>,
    /// Share an IPC namespace (none, private, shareable, host, container:NAME)
    #[arg(long, value_name = "string", value_parser = parse::namespace::ipc)]
    pub(crate) ipc: Option<NamespaceMode>,
    /// Share a host name namespace (host)
    #[arg(long, value_name = "string", value_parser = parse::namespace::uts)]
    pub(crate) uts: Option<NamespaceMode>,
    /// Choose the cgroup namespace (host, private)
    #[arg(long, value_name = "string", value_parser = parse::namespace::cgroup)]
    pub(crate) cgroupns: Option<NamespaceMode>,
    /// Choose the user namespace (host, auto, auto:size=N, keep-id, keep-id:uid=N,gid=N, nomap, CONTAINER:HOST:SIZE)
    #[arg(long, value_name = "string", value_parser = parse::namespace::user)]
    pub(crate) userns: Option<UserNamespace>,
    /// Map user ids of the container to the host's (CONTAINER:HOST:SIZE)
    #[arg(long, value_name = "list", value_parser = parse::namespace::id_range)]
    pub(crate) uidmap: Vec<IdMapping>,
    /// Map group ids of the container to the host's (CONTAINER:HOST:SIZE)
    #[arg(long, value_name = "list", value_parser = parse::namespace::id_range)]
    pub(crate) gidmap: Vec<IdMapping>,
    /// Choose what walls the container off (process, vm)
    #[arg(long, value_name = "string", value_parser = parse::namespace::isolation)]
    pub(crate) isolation: Option<Isolation>,
    /// Choose what runs a virtual machine (auto, kvm, qemu)
    #[arg(long, value_name = "string", value_parser = parse::namespace::monitor)]
    pub(crate) vmm: Option<MonitorRequest>,
    /// Choose a virtual machine's kernel (see `cata kernel ls`; image: boot the image with its own)
    #[arg(long, value_name = "name")]
    pub(crate) kernel: Option<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "map")]
    pub(crate) sysctl: Vec<String>,
    /// Allow devices without making a node (type major:minor access)
    #[arg(long, value_name = "list", value_parser = parse::device::rule)]
    pub(crate) device_cgroup_rule: Vec<DeviceRule>,
    /// Make a host device available inside (a path, or vendor.com/class=name)
    #[arg(long, value_name = "list", value_parser = parse::device::parse)]
    pub(crate) device: Vec<Device>,
    /// Make graphics processors available inside ("all", a number, "device=0")
    #[arg(long, value_name = "gpu-request", value_parser = parse::device::gpus)]
    pub(crate) gpus: Vec<GpuRequest>,
}

// Those that `update` can change too.
#[derive(Debug, Args)]
pub(crate) struct LimitOptions {
    /// Limit memory
    #[arg(short, long, value_name = "bytes", value_parser = parse::size::binary)]
    pub(crate) memory: Option<u64>,
    /// Memory that is kept free of reclaim under pressure
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    pub(crate) memory_reservation: Option<u64>,
    /// Limit memory and swap together (-1: unlimited swap)
    #[arg(long, value_name = "bytes", allow_hyphen_values = true, value_parser = parse::size::binary_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Number of processors
    #[arg(long, value_name = "decimal", allow_hyphen_values = true, value_parser = parse::cpus::parse)]
    pub(crate) cpus: Option<u64>,
    /// Relative share of processor time
    #[arg(short = 'c', long, value_name = "int")]
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Length of that period, in microseconds
    #[arg(long, value_name = "int")]
    pub(crate) cpu_period: Option<u64>,
    /// Processors that may be used (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_mems: Option<String>,
    /// Relative weight of block I/O (10 to 1000)
    #[arg(long, value_name = "uint16")]
    pub(crate) blkio_weight: Option<u16>,
    /// Limit the number of processes (-1: unlimited)
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct ResourceOptions {
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    /// Limit bytes read from a device in a second (device:size)
    #[arg(long, value_name = "list", value_parser = parse::block::read_bytes)]
    pub(crate) device_read_bps: Vec<BlockLimit>,
    /// Limit bytes written to a device in a second (device:size)
    #[arg(long, value_name = "list", value_parser = parse::block::write_bytes)]
    pub(crate) device_write_bps: Vec<BlockLimit>,
    /// Limit reads from a device in a second (device:number)
    #[arg(long, value_name = "list", value_parser = parse::block::read_operations)]
    pub(crate) device_read_iops: Vec<BlockLimit>,
    /// Limit writes to a device in a second (device:number)
    #[arg(long, value_name = "list", value_parser = parse::block::write_operations)]
    pub(crate) device_write_iops: Vec<BlockLimit>,
    /// Relative weight of a device's I/O (device:weight, 10 to 1000)
    #[arg(long, value_name = "list", value_parser = parse::block::weight)]
    pub(crate) blkio_weight_device: Vec<BlockLimit>,
    /// How readily memory is swapped out (0 to 100; -1: as the host); cgroup v1 only
    #[arg(long, value_name = "int", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..=100))]
    pub(crate) memory_swappiness: Option<i64>,
    /// Do not kill processes when memory runs out
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Adjust the kernel's choice of whom to kill (-1000 to 1000)
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i32>,
    /// Set a resource limit (name=soft[:hard])
    #[arg(long, value_name = "ulimit", value_parser = parse::ulimit::parse)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Parent of the container's cgroup
    #[arg(long, value_name = "string")]
    pub(crate) cgroup_parent: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    pub(crate) shm_size: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct StorageOptions {
    /// Mount a host path or a volume ([source:]target[:options])
    #[arg(short, long, value_name = "list")]
    pub(crate) volume: Vec<String>,
    /// Mount the volumes and binds of another container (container[:ro])
    #[arg(long, value_name = "list", value_parser = parse::volume::lender)]
    pub(crate) volumes_from: Vec<Lender>,
    /// Mount a host path, a volume or a tmpfs (type=…,source=…,target=…)
    #[arg(long, value_name = "mount")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs (target[:options])
    #[arg(long, value_name = "list", value_parser = parse::volume::tmpfs)]
    pub(crate) tmpfs: Vec<MountRequest>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LifeOptions {
    /// When to pull the image (always, missing, never)
    #[arg(long, value_name = "string", value_parser = parse::pull::parse)]
    pub(crate) pull: Option<cata_engine::request::PullPolicy>,
    /// Print nothing while pulling
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Choose the platform of an image that has several
    #[arg(long, value_name = "string", env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
    /// Write the container's id to this file
    #[arg(long, value_name = "string")]
    pub(crate) cidfile: Option<String>,
    /// Remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// What to do when the container exits (no, always, unless-stopped, on-failure[:max])
    #[arg(long, value_name = "string", value_parser = parse::restart::parse)]
    pub(crate) restart: Option<RestartPolicy>,
    /// Signal that stops the container
    #[arg(long, value_name = "string")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds to wait for a stop before the container is killed (-1: for ever)
    #[arg(long, value_name = "int", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Where output is kept (json-file, none)
    #[arg(long, value_name = "string")]
    pub(crate) log_driver: Option<String>,
    /// Set an option of the log (max-size=10m, max-file=5)
    #[arg(long, value_name = "list")]
    pub(crate) log_opt: Vec<String>,
    /// Command that checks the container's health
    #[arg(long, value_name = "string")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks (30s)
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    pub(crate) health_interval: Option<Duration>,
    /// Failures in a row that mean unhealthy
    #[arg(long, value_name = "int")]
    pub(crate) health_retries: Option<u32>,
    /// Time in which failures do not count
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    pub(crate) health_start_period: Option<Duration>,
    /// Time between two checks in the start period
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    pub(crate) health_start_interval: Option<Duration>,
    /// Longest time one check may take
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    pub(crate) health_timeout: Option<Duration>,
    /// What to do with an unhealthy container (none, kill, restart, stop)
    #[arg(long, visible_alias = "health-on-failure", value_name = "string", value_parser = parse::health::on_unhealthy)]
    pub(crate) on_unhealthy: Option<OnUnhealthy>,
    /// Do not check health, whatever the image says
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}
