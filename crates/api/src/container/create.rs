//! `POST /containers/create`: Docker's document as the engine's request. Pure, and complete: what it does not know is
//! refused.

use std::path::PathBuf;

use cata_engine::cdi::GPU_CAPABILITIES;
use cata_engine::request::{
    Attach, BlockLimit, BlockLimitKind, CreateRequest, DeviceName, DeviceRequest, DeviceRule,
    EndpointRequest, GpuRequest, Gpus, HealthRequest, Isolation, Lender, Link, LogPlan, MountRequest,
    MountSource, NamespaceMode, NetworkMode, PortRequest, PullPolicy, Resources, RestartPolicy,
    SeccompRequest, Security, Transport, Ulimit, UserNamespace,
};
use cata_spec::Name;
use serde_json::Value;

use crate::fields::Fields;
use crate::refusal::{Outcome, Refusal};

/// The request that a document is.
pub(crate) fn request(document: Value, name: Option<&str>, platform: Option<&str>) -> Outcome<CreateRequest> {
    let mut config = Fields::new("", document)?;
    let mut host = config.within("HostConfig")?;
    let mut networking = config.within("NetworkingConfig")?;
    let image = config.text("Image")?.ok_or_else(|| Refusal::invalid("no image specified"))?;
    let mut request = CreateRequest {
        name: name.map(container_name).transpose()?,
        platform: platform.map(str::to_owned),
        // A client pulls by itself, when it has been told that there is no such image.
        pull: PullPolicy::Never,
        command: config.list("Cmd")?,
        entrypoint: config.list_if_any("Entrypoint")?.map(|list| {
            // How clients clear the image's.
            if list == [""] { Vec::new() } else { list }
        }),
        labels: config.texts("Labels")?,
        workdir: config.text("WorkingDir")?,
        user: config.text("User")?,
        hostname: config.text("Hostname")?,
        domainname: config.text("Domainname")?,
        tty: config.flag("Tty")?,
        open_stdin: config.flag("OpenStdin")?,
        stdin_once: config.flag("StdinOnce")?,
        attach: Attach {
            stdin: config.flag("AttachStdin")?,
            stdout: config.flag("AttachStdout")?,
            stderr: config.flag("AttachStderr")?,
        },
        stop_signal: config.text("StopSignal")?,
        stop_timeout: timeout(config.value("StopTimeout"))?,
        health: health(config.within("Healthcheck")?)?,
        ..CreateRequest::new(image)
    };
    for text in config.list("Env")? {
        // A name alone takes the variable away; there is none to take away but the image's.
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        request.env.push((name.to_owned(), value.to_owned()));
    }
    for (port, _) in config.entries("ExposedPorts")? {
        request.expose.push(port);
    }
    for (target, _) in config.entries("Volumes")? {
        let source = MountSource::Volume { name: None, subpath: None, no_copy: false };
        request.mounts.push(MountRequest { source, target, read_only: false });
    }
    let mac = config.text("MacAddress")?;
    // `OnBuild` and `Shell` are of images; escaping is Windows'.
    config.ignore(&["OnBuild", "Shell", "ArgsEscaped"]);
    config.finish()?;

    take_host(&mut request, &mut host)?;
    request.network = network(&mut host, &mut networking, mac.as_deref())?;
    networking.finish()?;
    host.finish()?;
    Ok(request)
}

fn take_host(request: &mut CreateRequest, host: &mut Fields) -> Outcome<()> {
    take_mounts(request, host)?;
    for (port, bindings) in host.entries("PortBindings")? {
        request.ports.extend(ports(&port, &bindings)?);
    }
    request.publish_all = host.flag("PublishAllPorts")?;
    request.auto_remove = host.flag("AutoRemove")?;
    request.privileged = host.flag("Privileged")?;
    request.read_only = host.flag("ReadonlyRootfs")?;
    request.init = host.flag("Init")?;
    request.cap_add = host.list("CapAdd")?;
    request.cap_drop = host.list("CapDrop")?;
    request.groups = host.list("GroupAdd")?;
    request.dns_search = host.list("DnsSearch")?;
    request.dns_options = host.list("DnsOptions")?;
    for address in host.list("Dns")? {
        request
            .dns
            .push(address.parse().map_err(|_| Refusal::invalid(format!("invalid DNS address {address}")))?);
    }
    for text in host.list("ExtraHosts")? {
        let (name, address) = text
            .split_once(['=', ':'])
            .ok_or_else(|| Refusal::invalid(format!("bad format for add-host: \"{text}\"")))?;
        request.extra_hosts.push((name.to_owned(), address.trim_matches(['[', ']']).to_owned()));
    }
    request.security = security(host)?;
    request.pid = namespace(host, "PidMode")?;
    request.ipc = namespace(host, "IpcMode")?;
    request.uts = namespace(host, "UTSMode")?;
    request.cgroupns = namespace(host, "CgroupnsMode")?;
    request.userns = match host.text("UsernsMode")?.as_deref() {
        None | Some("host") => UserNamespace::Host,
        Some("auto") => UserNamespace::Auto { size: None },
        Some(other) => return Err(Refusal::unsupported(format!("HostConfig.UsernsMode = \"{other}\""))),
    };
    request.isolation = match host.text("Isolation")?.as_deref() {
        None | Some("default" | "process") => Isolation::Process,
        Some("vm") => Isolation::Vm,
        Some(other) => {
            return Err(Refusal::invalid(format!("invalid isolation '{other}': must be process or vm")));
        }
    };
    match host.text("Runtime")?.as_deref() {
        None | Some("cata" | "runc") => {}
        Some(other) => return Err(Refusal::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
    request.sysctls = host.texts("Sysctls")?;
    request.annotations = host.texts("Annotations")?;
    request.shm_size = host.amount("ShmSize")?;
    request.oom_score_adj = small(host, "OomScoreAdj")?;
    request.cgroup_parent = host.text("CgroupParent")?;
    request.restart = restart(host.within("RestartPolicy")?)?;
    request.log = log(host.within("LogConfig")?)?;
    take_devices(request, host)?;
    request.resources = limits(host)?;
    // Where a client has written the id, and how large its terminal is: it says so again when it has one.
    host.ignore(&["ContainerIDFile", "ConsoleSize"]);
    Ok(())
}

fn take_mounts(request: &mut CreateRequest, host: &mut Fields) -> Outcome<()> {
    for text in host.list("Binds")? {
        request.mounts.push(bind(&text)?);
    }
    for mount in host.objects("Mounts")? {
        request.mounts.push(mount_object(mount)?);
    }
    for (target, options) in host.texts("Tmpfs")? {
        request.mounts.push(tmpfs(target, &options)?);
    }
    // A volume of the image's place that something else is mounted at is that other thing.
    let named: Vec<String> = request.mounts.iter().map(|mount| mount.target.clone()).collect();
    let mut place = 0;
    request.mounts.retain(|mount| {
        place += 1;
        let nameless = matches!(mount.source, MountSource::Volume { name: None, .. });
        !(nameless && named.iter().enumerate().any(|(at, other)| at + 1 != place && *other == mount.target))
    });
    for lender in host.list("VolumesFrom")? {
        let (container, mode) = lender.split_once(':').unwrap_or((&lender, "rw"));
        let read_only = mode.split(',').any(|word| word == "ro");
        request.volumes_from.push(Lender { container: container.to_owned(), read_only });
    }
    Ok(())
}

fn take_devices(request: &mut CreateRequest, host: &mut Fields) -> Outcome<()> {
    for mut limit in host.objects("Ulimits")? {
        let name = limit.text("Name")?.unwrap_or_default();
        let (soft, hard) = (limit.number("Soft")?.unwrap_or(0), limit.number("Hard")?.unwrap_or(0));
        limit.finish()?;
        request.ulimits.push(Ulimit { name, soft, hard });
    }
    for mut device in host.objects("Devices")? {
        let path = device.text("PathOnHost")?.unwrap_or_default();
        request.devices.push(DeviceRequest {
            container: device.text("PathInContainer")?.unwrap_or_else(|| path.clone()).into(),
            host: path.into(),
            access: device.text("CgroupPermissions")?.unwrap_or_else(|| "rwm".to_owned()),
        });
        device.finish()?;
    }
    for mut asked in host.objects("DeviceRequests")? {
        take_device_request(request, &mut asked)?;
        asked.finish()?;
    }
    for rule in host.list("DeviceCgroupRules")? {
        request.device_rules.push(device_rule(&rule)?);
    }
    Ok(())
}

/// Devices by name (`cdi`), or graphics processors.
fn take_device_request(request: &mut CreateRequest, asked: &mut Fields) -> Outcome<()> {
    let driver = asked.text("Driver")?;
    let ids = asked.list("DeviceIDs")?;
    let count = asked.number("Count")?;
    let capabilities = asked.value("Capabilities");
    if driver.as_deref() == Some("cdi") {
        for id in &ids {
            request.device_names.push(DeviceName::new(id).map_err(Refusal::invalid)?);
        }
        return Ok(());
    }
    let words =
        capabilities.as_array().into_iter().flatten().flat_map(|set| set.as_array().into_iter().flatten());
    let mut gpu = false;
    for word in words.filter_map(Value::as_str) {
        gpu |= word == "gpu";
        if !GPU_CAPABILITIES.contains(&word) {
            return Err(Refusal::unsupported(format!("a device with the capability {word}")));
        }
    }
    if !gpu {
        return Err(Refusal::unsupported("a device request that is not for a gpu"));
    }
    let gpus = match count {
        _ if !ids.is_empty() => Gpus::Named(ids),
        None => Gpus::Count(0),
        Some(-1) => Gpus::All,
        Some(count) => {
            let wrong = |_| Refusal::invalid(format!("invalid count of a device request: {count}"));
            Gpus::Count(u32::try_from(count).map_err(wrong)?)
        }
    };
    request.gpus.push(GpuRequest { driver, gpus });
    Ok(())
}

/// Limits, as `create` and `update` have them.
pub(crate) fn limits(host: &mut Fields) -> Outcome<Resources> {
    let mut block = Vec::new();
    for (name, kind, word) in [
        ("BlkioDeviceReadBps", BlockLimitKind::ReadBytes, "Rate"),
        ("BlkioDeviceWriteBps", BlockLimitKind::WriteBytes, "Rate"),
        ("BlkioDeviceReadIOps", BlockLimitKind::ReadOperations, "Rate"),
        ("BlkioDeviceWriteIOps", BlockLimitKind::WriteOperations, "Rate"),
        ("BlkioWeightDevice", BlockLimitKind::Weight, "Weight"),
    ] {
        for mut limit in host.objects(name)? {
            let device = limit.text("Path")?.unwrap_or_default().into();
            block.push(BlockLimit { device, kind, value: limit.amount(word)?.unwrap_or(0) });
            limit.finish()?;
        }
    }
    let swappiness = host.number("MemorySwappiness")?;
    Ok(Resources {
        memory: host.amount("Memory")?,
        memory_reservation: host.amount("MemoryReservation")?,
        memory_swap: host.number("MemorySwap")?,
        nano_cpus: host.amount("NanoCpus")?,
        cpu_shares: host.amount("CpuShares")?,
        cpu_quota: host.number("CpuQuota")?,
        cpu_period: host.amount("CpuPeriod")?,
        cpuset_cpus: host.text("CpusetCpus")?,
        cpuset_mems: host.text("CpusetMems")?,
        pids: host.number("PidsLimit")?,
        blkio_weight: small(host, "BlkioWeight")?,
        oom_kill_disable: host.flag("OomKillDisable")?,
        // -1: as the host.
        swappiness: swappiness.and_then(|percent| u64::try_from(percent).ok()),
        block,
    })
}

fn small<T: TryFrom<i64>>(host: &mut Fields, name: &str) -> Outcome<Option<T>> {
    let number = host.number(name)?;
    number.map(|n| T::try_from(n).map_err(|_| Refusal::invalid(format!("invalid {name}: {n}")))).transpose()
}

fn container_name(text: &str) -> Outcome<Name> {
    Name::parse(text.strip_prefix('/').unwrap_or(text)).map_err(|_| {
        Refusal::invalid(format!(
            "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least"
        ))
    })
}

fn timeout(value: Value) -> Outcome<Option<i64>> {
    match value {
        Value::Null => Ok(None),
        value => value.as_i64().map(Some).ok_or_else(|| Refusal::invalid("StopTimeout must be a number")),
    }
}

fn health(mut fields: Fields) -> Outcome<HealthRequest> {
    let test = fields.list("Test")?;
    let mut request = HealthRequest {
        interval: fields.amount("Interval")?,
        timeout: fields.amount("Timeout")?,
        start_period: fields.amount("StartPeriod")?,
        start_interval: fields.amount("StartInterval")?,
        retries: small(&mut fields, "Retries")?,
        ..HealthRequest::default()
    };
    fields.finish()?;
    match test.split_first() {
        None => {}
        Some((kind, [])) if kind == "NONE" => {
            request = HealthRequest { disabled: true, ..Default::default() }
        }
        Some((kind, [line])) if kind == "CMD-SHELL" => request.command = Some(line.clone()),
        Some((kind, argv)) if kind == "CMD" && !argv.is_empty() => request.argv = argv.to_vec(),
        Some((kind, _)) => return Err(Refusal::invalid(format!("invalid health check of the kind {kind}"))),
    }
    Ok(request)
}

fn restart(mut fields: Fields) -> Outcome<RestartPolicy> {
    let (name, count) = (fields.text("Name")?, fields.number("MaximumRetryCount")?);
    fields.finish()?;
    match (name.as_deref(), count) {
        (None | Some("no"), None) => Ok(RestartPolicy::No),
        (Some("always"), None) => Ok(RestartPolicy::Always),
        (Some("unless-stopped"), None) => Ok(RestartPolicy::UnlessStopped),
        (Some("on-failure"), count) => {
            let max = count.map(|n| {
                u32::try_from(n).map_err(|_| Refusal::invalid("maximum retry count cannot be negative"))
            });
            Ok(RestartPolicy::OnFailure { max: max.transpose()? })
        }
        (name, _) => Err(Refusal::invalid(format!("invalid restart policy '{}'", name.unwrap_or("no")))),
    }
}

/// As `update` has it: none is no change.
pub(crate) fn restart_if_any(host: &mut Fields) -> Outcome<Option<RestartPolicy>> {
    let mut fields = host.within("RestartPolicy")?;
    let name = fields.text("Name")?;
    let count = fields.value("MaximumRetryCount");
    let Some(name) = name else { return Ok(None) };
    restart(Fields::new("RestartPolicy", serde_json::json!({"Name": name, "MaximumRetryCount": count}))?)
        .map(Some)
}

fn log(mut fields: Fields) -> Outcome<Option<LogPlan>> {
    let (kind, options) = (fields.text("Type")?, fields.texts("Config")?);
    fields.finish()?;
    match kind.as_deref() {
        Some("none") => return Ok(Some(LogPlan::None)),
        None | Some("json-file" | "local") => {}
        Some(other) => return Err(Refusal::unsupported(format!("the log driver {other}"))),
    }
    if options.is_empty() {
        return Ok(None);
    }
    let (mut max_size, mut max_file) = (10_000_000, 5);
    for (name, value) in options {
        let invalid = || Refusal::invalid(format!("invalid log option {name}={value}"));
        match name.as_str() {
            "max-size" if value == "-1" => max_size = u64::MAX,
            "max-size" => max_size = size(&value, 1000).filter(|size| *size > 0).ok_or_else(invalid)?,
            "max-file" => max_file = value.parse().ok().filter(|n| *n > 0).ok_or_else(invalid)?,
            _ => return Err(Refusal::unsupported(format!("the log option {name}"))),
        }
    }
    Ok(Some(LogPlan::JsonFile { max_size, max_file }))
}

/// PURE: `10m` in steps of `step`.
fn size(text: &str, step: u64) -> Option<u64> {
    let text = text.trim_end_matches(['b', 'B']).trim_end_matches('i');
    let (digits, exponent) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (&text[..text.len() - 1], 1),
        'm' => (&text[..text.len() - 1], 2),
        'g' => (&text[..text.len() - 1], 3),
        't' => (&text[..text.len() - 1], 4),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(step.pow(exponent))
}

fn security(host: &mut Fields) -> Outcome<Security> {
    let mut security = Security::default();
    for text in host.list("SecurityOpt")? {
        let (key, value) = text.split_once(['=', ':']).unwrap_or((&text, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => {}
            ("seccomp", "unconfined") => security.seccomp = SeccompRequest::Unconfined,
            ("seccomp", "builtin") => security.seccomp = SeccompRequest::Default,
            // The client has read the file.
            ("seccomp", profile) if profile.starts_with('{') => {
                security.seccomp = SeccompRequest::Profile(profile.to_owned());
            }
            ("apparmor", profile) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
            ("label", label) if !label.is_empty() => security.label.push(label.to_owned()),
            _ => return Err(Refusal::invalid(format!("invalid --security-opt: \"{text}\""))),
        }
    }
    // `systempaths=unconfined` is two empty lists; none are Docker's own paths.
    let paths = [host.list_if_any("MaskedPaths")?, host.list_if_any("ReadonlyPaths")?];
    security.unconfined_paths = match paths {
        [None, None] => false,
        [Some(masked), Some(read_only)] if masked.is_empty() && read_only.is_empty() => true,
        _ => return Err(Refusal::unsupported("a list of paths in HostConfig.MaskedPaths or ReadonlyPaths")),
    };
    Ok(security)
}

fn namespace(host: &mut Fields, name: &str) -> Outcome<NamespaceMode> {
    let text = host.text(name)?.unwrap_or_default();
    let mode = match (name, text.as_str()) {
        (_, "" | "private") => NamespaceMode::Private,
        (_, "host") => NamespaceMode::Host,
        ("IpcMode", "shareable") => NamespaceMode::Shareable,
        ("IpcMode", "none") => NamespaceMode::None,
        ("PidMode" | "IpcMode", text) if text.starts_with("container:") => {
            NamespaceMode::Container(text["container:".len()..].to_owned())
        }
        _ => return Err(Refusal::invalid(format!("HostConfig.{name}: invalid mode '{text}'"))),
    };
    Ok(mode)
}

/// PURE: `source:target[:options]`.
fn bind(text: &str) -> Outcome<MountRequest> {
    let invalid = |why: &str| Refusal::invalid(format!("invalid volume specification: '{text}': {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(invalid("it must be source:target[:options]")),
    };
    if !target.starts_with('/') {
        return Err(invalid("mount path must be absolute"));
    }
    let (mut read_only, mut no_copy, mut propagation) = (false, false, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                propagation = Some(option.to_owned());
            }
            _ => return Err(invalid(&format!("invalid mode: {option}"))),
        }
    }
    let source = if source.starts_with('/') {
        MountSource::Bind { path: source.into(), create: true, propagation, recursive: true }
    } else {
        MountSource::Volume { name: Some(volume_name(source)?), subpath: None, no_copy }
    };
    Ok(MountRequest { source, target: target.to_owned(), read_only })
}

fn volume_name(text: &str) -> Outcome<Name> {
    Name::parse(text).map_err(|_| {
        Refusal::invalid(format!("create {text}: \"{text}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"))
    })
}

fn mount_object(mut fields: Fields) -> Outcome<MountRequest> {
    let kind = fields.text("Type")?.unwrap_or_default();
    let source = fields.text("Source")?;
    let target = fields.text("Target")?.ok_or_else(|| Refusal::invalid("a mount has no target"))?;
    let read_only = fields.flag("ReadOnly")?;
    let mut bind = fields.within("BindOptions")?;
    let mut volume = fields.within("VolumeOptions")?;
    let mut tmpfs = fields.within("TmpfsOptions")?;
    fields.ignore(&["Consistency"]);
    let source = match kind.as_str() {
        "bind" => MountSource::Bind {
            path: PathBuf::from(source.unwrap_or_default()),
            create: bind.flag("CreateMountpoint")?,
            propagation: bind.text("Propagation")?,
            recursive: !bind.flag("NonRecursive")?,
        },
        "volume" => MountSource::Volume {
            name: source.as_deref().map(volume_name).transpose()?,
            subpath: volume.text("Subpath")?,
            no_copy: volume.flag("NoCopy")?,
        },
        "tmpfs" => MountSource::Tmpfs {
            size: tmpfs.amount("SizeBytes")?,
            mode: small(&mut tmpfs, "Mode")?,
            options: Vec::new(),
        },
        other => return Err(Refusal::unsupported(format!("a mount of the type {other}"))),
    };
    let mut driver = volume.within("DriverConfig")?;
    if driver.text("Name")?.is_some_and(|name| name != "local") {
        return Err(Refusal::unsupported("a volume driver other than local"));
    }
    driver.finish()?;
    bind.finish()?;
    volume.finish()?;
    tmpfs.finish()?;
    fields.finish()?;
    Ok(MountRequest { source, target, read_only })
}

fn tmpfs(target: String, options: &str) -> Outcome<MountRequest> {
    let invalid = |option: &str| Refusal::invalid(format!("invalid tmpfs option [\"{option}\"]"));
    let (mut bytes, mut mode, mut read_only, mut others) = (None, None, false, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) if !value.ends_with('%') => {
                bytes = Some(size(value, 1024).ok_or_else(|| invalid(option))?);
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| invalid(option))?);
            }
            Some(("size" | "uid" | "gid" | "nr_inodes" | "nr_blocks", _)) => others.push(option.to_owned()),
            Some(_) => return Err(invalid(option)),
            None if option == "ro" => read_only = true,
            None if option == "rw" => {}
            // The engine knows which words there are.
            None => others.push(option.to_owned()),
        }
    }
    Ok(MountRequest { source: MountSource::Tmpfs { size: bytes, mode, options: others }, target, read_only })
}

/// PURE: `80/tcp` and where it is published.
fn ports(port: &str, bindings: &Value) -> Outcome<Vec<PortRequest>> {
    let invalid = || Refusal::invalid(format!("invalid port specification: \"{port}\""));
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let transport = match protocol {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(Refusal::unsupported(format!("publishing the protocol {protocol}"))),
    };
    let container_port: u16 = number.parse().map_err(|_| invalid())?;
    let mut list = Vec::new();
    for binding in bindings.as_array().into_iter().flatten() {
        let word = |name: &str| binding.get(name).and_then(Value::as_str).unwrap_or_default();
        let (first, last) = match word("HostPort") {
            "" => (0, 0),
            text => {
                let (first, last) = text.split_once('-').unwrap_or((text, "0"));
                (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?)
            }
        };
        let host_ip = match word("HostIp") {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid())?),
        };
        list.push(PortRequest { host_ip, host_port: first, host_port_last: last, container_port, transport });
    }
    Ok(list)
}

/// PURE: `c 10:* rwm`.
fn device_rule(text: &str) -> Outcome<DeviceRule> {
    let invalid = || Refusal::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = words.as_slice() else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse().map(Some).map_err(|_| invalid()),
    };
    let kind = kind.chars().next().filter(|kind| "abc".contains(*kind)).ok_or_else(invalid)?;
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: (*access).to_owned() })
}

/// One network, as said of a container's place in it.
pub(crate) fn endpoint(network: &str, settings: Value, mac: Option<&str>) -> Outcome<EndpointRequest> {
    let mut fields = Fields::new("EndpointSettings", settings)?;
    let mut addresses = fields.within("IPAMConfig")?;
    let invalid = |text: &str| Refusal::invalid(format!("invalid address {text}"));
    let mac = fields.text("MacAddress")?.or_else(|| mac.map(str::to_owned));
    let request = EndpointRequest {
        network: Name::parse(network)
            .map_err(|_| Refusal::missing(format!("network {network} not found")))?,
        aliases: fields.list("Aliases")?,
        ipv4: addresses.text("IPv4Address")?.map(|a| a.parse().map_err(|_| invalid(&a))).transpose()?,
        ipv6: addresses.text("IPv6Address")?.map(|a| a.parse().map_err(|_| invalid(&a))).transpose()?,
        mac: mac.map(|text| mac_address(&text)).transpose()?,
        gateway_priority: small(&mut fields, "GwPriority")?.unwrap_or(0),
        links: fields.list("Links")?.iter().map(|text| link(text)).collect::<Outcome<_>>()?,
    };
    addresses.finish()?;
    // What `inspect` says of one that was connected, and clients send back.
    fields.ignore(&[
        "NetworkID",
        "EndpointID",
        "Gateway",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "DNSNames",
    ]);
    fields.finish()?;
    Ok(request)
}

/// PURE: `container` or `container:alias`.
fn link(text: &str) -> Outcome<Link> {
    let (to, alias) = text.split_once(':').unwrap_or((text, text));
    // As `inspect` has them.
    let (to, alias) = (to.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or_default());
    if to.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Refusal::invalid(format!("bad format for links: {text}")));
    }
    Ok(Link { to: to.to_owned(), alias: alias.to_owned() })
}

fn mac_address(text: &str) -> Outcome<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.ok_or_else(|| Refusal::invalid(format!("invalid MAC address: {text}")))
}

fn network(host: &mut Fields, networking: &mut Fields, mac: Option<&str>) -> Outcome<NetworkMode> {
    let links = host.list("Links")?.iter().map(|text| link(text)).collect::<Outcome<Vec<Link>>>()?;
    let mode = host.text("NetworkMode")?.unwrap_or_else(|| "default".to_owned());
    let mut settings = networking.entries("EndpointsConfig")?;
    if !links.is_empty() && (matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:")) {
        return Err(Refusal::invalid(format!(
            "conflicting options: links cannot be used with the network {mode}"
        )));
    }
    match mode.as_str() {
        "host" => return Ok(NetworkMode::Host),
        "none" => return Ok(NetworkMode::None),
        _ => {}
    }
    if let Some(container) = mode.strip_prefix("container:") {
        return Ok(NetworkMode::Container(container.to_owned()));
    }
    let first = if mode == "default" { "bridge" } else { &mode };
    let own = settings.iter().position(|(name, _)| name == first || *name == mode);
    let own = own.map_or(Value::Null, |at| settings.remove(at).1);
    if first == "bridge" && settings.is_empty() && mac.is_none() && own.is_null() && links.is_empty() {
        return Ok(NetworkMode::Networks(Vec::new()));
    }
    let mut list = vec![endpoint(first, own, mac)?];
    list[0].links.extend(links);
    for (name, settings) in settings {
        list.push(endpoint(&name, settings, None)?);
    }
    Ok(NetworkMode::Networks(list))
}
