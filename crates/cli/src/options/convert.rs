//! [`CreateOptions`] to [`CreateRequest`]: pure, given the caller's surroundings.

use std::collections::BTreeMap;
use std::time::Duration;

use cata_engine::request::{
    Attach, CreateRequest, DeviceName, DeviceRequest, HealthRequest, Isolation, MountRequest, NamespaceMode,
    OnUnhealthy, Resources, RestartPolicy,
};
use cata_spec::Name;

use super::create::{
    CreateOptions, LifeOptions, LimitOptions, ProcessOptions, ResourceOptions, StorageOptions,
};
use crate::parse::device::Device;
use crate::parse::stream::Stream;
use crate::parse::{self, ParseError, Parsed};

/// What the conversion may know of the caller.
pub(crate) struct Surroundings<'a> {
    /// The caller's working directory.
    pub(crate) current_dir: &'a str,
    /// A variable of the caller's environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file that a flag names.
    pub(crate) read: &'a dyn Fn(&str) -> Parsed<String>,
}

/// In which way the container is started after it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// `create`.
    Create,
    /// `run`.
    Foreground,
    /// `run -d`.
    Detached,
}

/// Which streams are attached: what `-a` says, or else both outputs, and the input with `-i`.
pub(crate) fn attach(process: &ProcessOptions, using: Use) -> Attach {
    if using == Use::Detached {
        return Attach::default();
    }
    if process.attach.is_empty() {
        return Attach { stdin: process.interactive, stdout: true, stderr: true };
    }
    let has = |stream| process.attach.contains(&stream);
    Attach { stdin: has(Stream::Stdin), stdout: has(Stream::Stdout), stderr: has(Stream::Stderr) }
}

/// The request. Takes the options apart; errors name the flag.
pub(crate) fn request(
    options: CreateOptions,
    image_and_command: Vec<String>,
    using: Use,
    around: &Surroundings<'_>,
) -> Parsed<CreateRequest> {
    let CreateOptions { process, network, isolation, resources, storage, life } = options;
    conflicts(&process, &life, using)?;
    let mut words = image_and_command.into_iter();
    let image = words.next().unwrap_or_default();
    if image.is_empty() {
        return Err(ParseError::new("invalid reference format: the image's name is empty"));
    }
    let attach = attach(&process, using);
    let beside = parse::network::Beside {
        aliases: &network.network_alias,
        links: &network.link,
        ipv4: network.ip,
        ipv6: network.ip6,
        mac: network.mac_address,
    };
    let health = health(&life)?;
    let (devices, device_names) = devices(isolation.device);
    Ok(CreateRequest {
        image,
        command: words.collect(),
        entrypoint: process.entrypoint.as_ref().map(|text| entrypoint(text)),
        name: process.name.as_deref().map(name).transpose()?,
        platform: life.platform.filter(|p| !p.is_empty()),
        pull: life.pull.unwrap_or_default(),
        env: environment(&process, around)?,
        labels: labels(&process, around)?,
        workdir: process.workdir.map(|dir| workdir(&dir)).transpose()?,
        user: process.user,
        groups: process.group_add,
        hostname: process.hostname,
        domainname: process.domainname,
        tty: process.tty,
        open_stdin: process.interactive,
        stdin_once: process.interactive && attach.stdin,
        attach,
        init: process.init,
        auto_remove: life.rm,
        leashed: false,
        read_only: storage.read_only,
        privileged: isolation.privileged,
        isolation: isolation.isolation.unwrap_or(Isolation::Process),
        monitor: isolation.vmm.unwrap_or_default(),
        kernel: isolation.kernel,
        cap_add: isolation.cap_add,
        cap_drop: isolation.cap_drop,
        security: parse::security::parse(&isolation.security_opt, around.read)?,
        volumes_from: storage.volumes_from.clone(),
        mounts: mounts(storage, around)?,
        files: Vec::new(),
        devices,
        device_names,
        gpus: isolation.gpus,
        device_rules: isolation.device_cgroup_rule,
        network: parse::network::parse(&network.network, &beside)?,
        ports: network.publish.into_iter().flat_map(|ports| ports.0).collect(),
        expose: network.expose.into_iter().flat_map(|ports| ports.0).collect(),
        publish_all: network.publish_all,
        dns: network.dns,
        dns_search: network.dns_search,
        dns_options: network.dns_option,
        extra_hosts: network.add_host,
        pid: isolation.pid.unwrap_or_default(),
        ipc: isolation.ipc.unwrap_or_default(),
        uts: isolation.uts.unwrap_or_default(),
        cgroupns: cgroupns(isolation.cgroupns),
        userns: parse::namespace::users(isolation.userns, &isolation.uidmap, &isolation.gidmap)?,
        ulimits: resources.ulimit.clone(),
        shm_size: resources.shm_size,
        oom_score_adj: score(resources.oom_score_adj)?,
        cgroup_parent: resources.cgroup_parent.clone(),
        resources: limits_and_devices(resources)?,
        sysctls: parse::key_value::pairs(&isolation.sysctl, "sysctl")?,
        restart: life.restart.unwrap_or(RestartPolicy::No),
        stop_signal: life.stop_signal,
        stop_timeout: life.stop_timeout,
        health,
        log: parse::log::parse(life.log_driver.as_deref(), &life.log_opt)?,
        annotations: parse::key_value::pairs(&process.annotation, "annotation")?,
        machine: None,
    })
}

/// Those by path, and those by name.
fn devices(asked: Vec<Device>) -> (Vec<DeviceRequest>, Vec<DeviceName>) {
    let (mut nodes, mut names) = (Vec::new(), Vec::new());
    for device in asked {
        match device {
            Device::Node(node) => nodes.push(node),
            Device::Name(name) => names.push(name),
        }
    }
    (nodes, names)
}

fn conflicts(process: &ProcessOptions, life: &LifeOptions, using: Use) -> Parsed<()> {
    if using == Use::Detached && !process.attach.is_empty() {
        return Err(ParseError::new("conflicting options: cannot specify both --attach and --detach"));
    }
    if life.rm && !matches!(life.restart, None | Some(RestartPolicy::No)) {
        return Err(ParseError::new("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(())
}

/// `--entrypoint ""` clears the image's; otherwise it is one word, not split.
fn entrypoint(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

fn name(text: &str) -> Parsed<Name> {
    // Docker accepts and drops a leading slash.
    Name::parse(text.strip_prefix('/').unwrap_or(text)).map_err(|_| {
        ParseError::new(format!(
            "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least"
        ))
    })
}

fn workdir(text: &str) -> Parsed<String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(ParseError::new(format!(
        "the working directory '{text}' is invalid, it needs to be an absolute path"
    )))
}

/// Files first, flags over them, the last one of a name wins, in the order of first appearance.
fn environment(process: &ProcessOptions, around: &Surroundings<'_>) -> Parsed<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut put = |name: String, value: String| match all.iter_mut().find(|(have, _)| *have == name) {
        Some((_, old)) => *old = value,
        None => all.push((name, value)),
    };
    for path in &process.env_file {
        for (name, value) in parse::env::file(path, &(around.read)(path)?, around.variable)? {
            put(name, value);
        }
    }
    for text in &process.env {
        if let Some((name, value)) = parse::env::variable(text, around.variable)? {
            put(name, value);
        }
    }
    Ok(all)
}

fn labels(process: &ProcessOptions, around: &Surroundings<'_>) -> Parsed<BTreeMap<String, String>> {
    let mut typed = Vec::new();
    for path in &process.label_file {
        typed.extend(parse::env::label_file(&(around.read)(path)?));
    }
    typed.extend_from_slice(&process.label);
    parse::key_value::labels(&typed)
}

/// All mounts; two at the same place are refused.
fn mounts(storage: StorageOptions, around: &Surroundings<'_>) -> Parsed<Vec<MountRequest>> {
    let mut mounts = Vec::new();
    for text in &storage.volume {
        mounts.push(parse::volume::parse(text, around.current_dir)?);
    }
    for text in &storage.mount {
        let mount = parse::mount::parse(text, around.current_dir)
            .map_err(|e| ParseError::new(format!("invalid argument \"{text}\" for \"--mount\" flag: {e}")))?;
        mounts.push(mount);
    }
    mounts.extend(storage.tmpfs);
    for (index, mount) in mounts.iter().enumerate() {
        let same =
            |other: &MountRequest| other.target.trim_end_matches('/') == mount.target.trim_end_matches('/');
        if mounts.iter().take(index).any(same) {
            return Err(ParseError::new(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    Ok(mounts)
}

/// On hosts with cgroup v1 alone Docker's default is the host's namespace; the engine decides for `Private`.
fn cgroupns(typed: Option<NamespaceMode>) -> NamespaceMode {
    typed.unwrap_or_default()
}

fn score(typed: Option<i32>) -> Parsed<Option<i32>> {
    match typed {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(ParseError::new(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")))
        }
        score => Ok(score),
    }
}

/// What may be said when a container is made, and not changed later.
fn limits_and_devices(typed: ResourceOptions) -> Parsed<Resources> {
    let block = [
        typed.device_read_bps,
        typed.device_write_bps,
        typed.device_read_iops,
        typed.device_write_iops,
        typed.blkio_weight_device,
    ];
    Ok(Resources {
        oom_kill_disable: typed.oom_kill_disable,
        swappiness: typed.memory_swappiness.and_then(|percent| u64::try_from(percent).ok()),
        block: block.concat(),
        ..limits(typed.limits)?
    })
}

pub(crate) fn limits(typed: LimitOptions) -> Parsed<Resources> {
    if typed.cpus.is_some() && (typed.cpu_quota.is_some() || typed.cpu_period.is_some()) {
        return Err(ParseError::new(
            "Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set: use --cpus or --cpu-quota",
        ));
    }
    if typed.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        return Err(ParseError::new("Range of blkio weight is from 10 to 1000"));
    }
    // Docker's 0 means: not limited.
    Ok(Resources {
        memory: typed.memory.filter(|n| *n > 0),
        memory_reservation: typed.memory_reservation.filter(|n| *n > 0),
        memory_swap: typed.memory_swap.filter(|n| *n != 0),
        nano_cpus: typed.cpus.filter(|n| *n > 0),
        cpu_shares: typed.cpu_shares.filter(|n| *n > 0),
        cpu_quota: typed.cpu_quota.filter(|n| *n != 0),
        cpu_period: typed.cpu_period.filter(|n| *n > 0),
        cpuset_cpus: typed.cpuset_cpus.filter(|s| !s.is_empty()),
        cpuset_mems: typed.cpuset_mems.filter(|s| !s.is_empty()),
        pids: typed.pids_limit.filter(|n| *n != 0),
        blkio_weight: typed.blkio_weight.filter(|n| *n > 0),
        oom_kill_disable: false,
        swappiness: None,
        block: Vec::new(),
    })
}

fn health(life: &LifeOptions) -> Parsed<HealthRequest> {
    let nanos =
        |time: Option<Duration>| time.and_then(|t| u64::try_from(t.as_nanos()).ok()).filter(|n| *n > 0);
    let request = HealthRequest {
        disabled: life.no_healthcheck,
        argv: Vec::new(),
        command: life.health_cmd.clone().filter(|c| !c.is_empty()),
        interval: nanos(life.health_interval),
        timeout: nanos(life.health_timeout),
        start_period: nanos(life.health_start_period),
        start_interval: nanos(life.health_start_interval),
        retries: life.health_retries.filter(|n| *n > 0),
        on_unhealthy: life.on_unhealthy.unwrap_or(OnUnhealthy::None),
    };
    let others = HealthRequest { disabled: false, ..request.clone() };
    if request.disabled && others != HealthRequest::default() {
        return Err(ParseError::new("--no-healthcheck conflicts with --health-* options"));
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
