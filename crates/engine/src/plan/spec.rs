//! PURE: a container's record as the OCI document the runtime plans from.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use cata_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxSeccomp, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::error::Error;
use crate::paths::ContainerDir;
use crate::plan::{capabilities, devices, resources};
use crate::record::{MountKind, MountPoint, Record};
use crate::request::{IdMapping, NamespaceMode, NetworkMode, Ulimit};

/// Bytes of `/dev/shm` when not asked for: Docker's 64 MB.
const SHM_SIZE: u64 = 64 * 1024 * 1024;

/// Hidden from every unprivileged container (moby `oci/defaults.go`).
pub(crate) const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only in every unprivileged container (moby `oci/defaults.go`).
pub(crate) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What only the moment of a start knows.
#[derive(Debug)]
pub struct Given {
    /// From [`crate::plan::namespaces::plan`].
    pub namespaces: Vec<LinuxNamespace>,
    /// Host devices that were asked for, or all of them for `--privileged`.
    pub devices: Vec<devices::Found>,
    /// Limits of block devices.
    pub block: Vec<resources::Block>,
    /// The filter, or none.
    pub seccomp: Option<LinuxSeccomp>,
    /// The AppArmor profile, or none.
    pub apparmor: Option<String>,
    /// Where the cgroup goes, beneath the hierarchy's root.
    pub cgroup: PathBuf,
    /// Whether `/etc/hosts` and `/etc/resolv.conf` are ours to give (not when the network is another's).
    pub own_network_files: bool,
    /// Further files of the container's directory that are mounted over the image's.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// The OCI document.
///
/// # Errors
/// [`Error::Invalid`] for a limit, ulimit or sysctl that makes no sense.
pub fn plan(record: &Record, dir: &ContainerDir, given: &Given) -> Result<Spec, Error> {
    let request = &record.request;
    let capabilities = capabilities::effective(request.privileged, &request.cap_add, &request.cap_drop)?;
    let rules = devices::rules(request.privileged, &given.devices, &request.device_rules)?;
    let open_paths = request.privileged || request.security.unconfined_paths;
    let mut linux = LinuxBuilder::default()
        .namespaces(given.namespaces.clone())
        .cgroups_path(given.cgroup.clone())
        .resources(resources::oci(&request.resources, rules, &given.block)?)
        .devices(given.devices.iter().map(devices::Found::node).collect::<Result<Vec<_>, _>>()?)
        .sysctl(sysctls(record)?)
        .masked_paths(if open_paths { Vec::new() } else { MASKED.map(str::to_owned).to_vec() })
        .readonly_paths(if open_paths { Vec::new() } else { READ_ONLY.map(str::to_owned).to_vec() })
        .rootfs_propagation(propagation(&record.mounts));
    if let Some(users) = &record.users {
        linux = linux.uid_mappings(oci_map(&users.uids)?).gid_mappings(oci_map(&users.gids)?);
    }
    if let Some(seccomp) = given.seccomp.clone() {
        linux = linux.seccomp(seccomp);
    }
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(built(RootBuilder::default().path("rootfs").readonly(request.read_only).build())?)
        .mounts(mounts(record, dir, given)?)
        .process(process(record, &capabilities, given.apparmor.clone())?)
        .annotations(request.annotations.clone().into_iter().collect::<HashMap<_, _>>())
        .linux(built(linux.build())?);
    if let Some(domain) = &request.domainname {
        spec = spec.domainname(domain.clone());
    }
    let mut spec = built(spec.build())?;
    // The builder's own default is a name.
    let own = request.uts != NamespaceMode::Host && !matches!(request.uts, NamespaceMode::Container(_));
    spec.set_hostname(own.then(|| record.config.hostname.clone()));
    Ok(spec)
}

fn oci_map(ranges: &[IdMapping]) -> Result<Vec<LinuxIdMapping>, Error> {
    let one = |range: &IdMapping| {
        let map = LinuxIdMappingBuilder::default();
        built(map.container_id(range.container).host_id(range.host).size(range.size).build())
    };
    ranges.iter().map(one).collect()
}

fn built<T, E: Display>(result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|e| Error::Invalid(e.to_string()))
}

fn process(
    record: &Record,
    capabilities: &std::collections::HashSet<Capability>,
    apparmor: Option<String>,
) -> Result<cata_spec::runtime::Process, Error> {
    let request = &record.request;
    let set = capabilities.clone();
    // No inheritable or ambient capabilities (CVE-2022-24769): a file's own are what a non-root user gets.
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set)
        .inheritable(cata_spec::runtime::Capabilities::new())
        .ambient(cata_spec::runtime::Capabilities::new());
    let workdir = if record.config.workdir.is_empty() { "/" } else { &record.config.workdir };
    let mut process = ProcessBuilder::default()
        .terminal(request.tty)
        // The name is resolved inside the root file system by the runtime.
        .user(built(UserBuilder::default().uid(0_u32).gid(0_u32).build())?)
        .args(record.config.argv.clone())
        .env(crate::plan::config::environment(&record.config, request.tty))
        .cwd(workdir)
        .capabilities(built(sets.build())?)
        .no_new_privileges(request.security.no_new_privileges)
        .rlimits(request.ulimits.iter().map(rlimit).collect::<Result<Vec<_>, _>>()?);
    if let Some(profile) = apparmor {
        process = process.apparmor_profile(profile);
    }
    // Always said: the supervisor may have inherited another from whoever started it.
    process = process.oom_score_adj(request.oom_score_adj.unwrap_or(0));
    built(process.build())
}

fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit, Error> {
    let kind = match ulimit.name.as_str() {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        other => return Err(Error::Invalid(format!("invalid ulimit type: {other}"))),
    };
    let value = |v: i64| u64::try_from(v).unwrap_or(u64::MAX);
    let (soft, hard) = (value(ulimit.soft), value(ulimit.hard));
    if soft > hard {
        return Err(Error::Invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard} ({})",
            ulimit.name
        )));
    }
    built(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build())
}

/// Sysctls beneath `net.` belong to the network namespace and need one of one's own; the rest to IPC.
fn sysctls(record: &Record) -> Result<HashMap<String, String>, Error> {
    let request = &record.request;
    let own_network = matches!(request.network, NetworkMode::None | NetworkMode::Networks(_));
    let mut set: HashMap<String, String> = HashMap::new();
    if own_network && !request.privileged {
        // Docker's: binding low ports and pinging need no capability inside.
        set.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        // Groups that do not exist inside cannot be named there.
        let last = record.users.as_ref().map_or(2_147_483_647, |users| users.last_group().min(2_147_483_647));
        set.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
    }
    for (key, value) in &request.sysctls {
        if key.starts_with("net.") && !own_network {
            return Err(Error::Invalid(format!("sysctl '{key}' not allowed in host network namespace")));
        }
        let ipc = key.starts_with("kernel.msg")
            || key.starts_with("kernel.shm")
            || key == "kernel.sem"
            || key.starts_with("fs.mqueue.");
        if ipc && request.ipc == NamespaceMode::Host {
            return Err(Error::Invalid(format!("sysctl '{key}' not allowed in host ipc namespace")));
        }
        if !ipc && !key.starts_with("net.") {
            return Err(Error::Invalid(format!("sysctl '{key}' is not whitelisted")));
        }
        set.insert(key.clone(), value.clone());
    }
    Ok(set)
}

/// The root must let mounts through as far as any bind asks for.
fn propagation(mounts: &[MountPoint]) -> String {
    let asks =
        |names: [&str; 2]| mounts.iter().any(|m| m.options.iter().any(|o| names.contains(&o.as_str())));
    let mode = if asks(["rshared", "shared"]) {
        "rshared"
    } else if asks(["rslave", "slave"]) {
        "rslave"
    } else {
        "rprivate"
    };
    mode.to_owned()
}

fn mounts(record: &Record, dir: &ContainerDir, given: &Given) -> Result<Vec<Mount>, Error> {
    let request = &record.request;
    let covered = |target: &str| record.mounts.iter().any(|m| m.target == target);
    let mut list = Vec::with_capacity(16);
    let mut add = |target: &str, kind: &str, source: &str, options: &[&str]| -> Result<(), Error> {
        if !covered(target) {
            list.push(mount(target, kind, Path::new(source), options)?);
        }
        Ok(())
    };
    let sys_mode = if request.privileged { "rw" } else { "ro" };
    let quiet = ["nosuid", "noexec", "nodev"];
    add("/proc", "proc", "proc", &quiet)?;
    add("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?;
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    if record.users.as_ref().is_some_and(|users| users.outside(0, 5).is_none()) {
        // A small map may have no such group.
        terminals.pop();
    }
    add("/dev/pts", "devpts", "devpts", &terminals)?;
    add("/sys", "sysfs", "sysfs", &[quiet[0], quiet[1], quiet[2], sys_mode])?;
    add("/sys/fs/cgroup", "cgroup", "cgroup", &[sys_mode, quiet[0], quiet[1], quiet[2]])?;
    add("/dev/mqueue", "mqueue", "mqueue", &quiet)?;
    match &request.ipc {
        // The host's, or the other container's: whose is said where the runtime's plan is made.
        NamespaceMode::Host | NamespaceMode::Container(_) => {
            add("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])?;
        }
        NamespaceMode::None => {}
        NamespaceMode::Private | NamespaceMode::Shareable => {
            let size = format!("size={}", request.shm_size.unwrap_or(SHM_SIZE));
            add("/dev/shm", "tmpfs", "shm", &[quiet[0], quiet[1], quiet[2], "mode=1777", &size])?;
        }
    }
    let file = |path: PathBuf| path.to_string_lossy().into_owned();
    // With users of its own, what belongs to the host's root belongs to the container's.
    let mapped = record.users.as_ref().is_some_and(|users| !users.on_disk);
    let bind: &[&str] = if mapped { &["bind", "rprivate", "idmap"] } else { &["rbind", "rprivate"] };
    if given.own_network_files {
        add("/etc/resolv.conf", "bind", &file(dir.resolv_conf()), bind)?;
        add("/etc/hosts", "bind", &file(dir.hosts()), bind)?;
    }
    add("/etc/hostname", "bind", &file(dir.hostname()), bind)?;
    for (target, path) in &given.files {
        add(target, "bind", &path.to_string_lossy(), bind)?;
    }
    for point in &record.mounts {
        list.push(user_mount(point, mapped)?);
    }
    Ok(list)
}

fn user_mount(point: &MountPoint, mapped: bool) -> Result<Mount, Error> {
    let mode = if point.read_only { "ro" } else { "rw" };
    let mut options: Vec<&str> = point.options.iter().map(String::as_str).collect();
    let kind = match &point.kind {
        MountKind::Tmpfs => "tmpfs",
        MountKind::Bind { .. } | MountKind::Volume { .. } => {
            options.insert(0, if point.recursive { "rbind" } else { "bind" });
            if mapped {
                options.push(if point.recursive { "ridmap" } else { "idmap" });
            }
            "bind"
        }
    };
    options.push(mode);
    let source = if point.kind == MountKind::Tmpfs { Path::new("tmpfs") } else { &point.source };
    mount(&point.target, kind, source, &options)
}

fn mount(target: &str, kind: &str, source: &Path, options: &[&str]) -> Result<Mount, Error> {
    built(
        MountBuilder::default()
            .destination(target)
            .typ(kind)
            .source(source)
            .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
            .build(),
    )
}

#[cfg(test)]
mod tests;
