//! `inspect`: a container as Docker's document shows it. PURE but for the gathering of the view.

use cata_network::request::{Endpoint, Transport};
use cata_sandbox::launch::{LogPlan, RestartPolicy};
use cata_sandbox::stamp::Stamp;
use cata_sandbox::status::{Status, StatusKind};
use serde_json::{Map, Value, json};

use crate::container::live::View;
use crate::engine::Engine;
use crate::error::Result;
use crate::paths::Paths;
use crate::record::{MountKind, MountPoint};
use crate::request::{
    BlockLimitKind, CreateRequest, DeviceRule, EndpointRequest, Gpus, IdMapping, MountSource, NamespaceMode,
    NetworkMode, SeccompRequest, UserNamespace, Users,
};

/// Docker's "never".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// One container as Docker's `inspect` document.
    ///
    /// # Errors
    /// [`crate::Error::NoContainer`].
    pub fn inspect(&self, container: &str) -> Result<Value> {
        let view = self.view(self.find(container)?)?;
        Ok(self.with_machine(&view, self.document_of(&view)))
    }

    /// The same of one that has been looked at, without what only [`Engine::inspect`] adds.
    #[must_use]
    pub fn document_of(&self, view: &View) -> Value {
        let profile = self.apparmor(&view.record).ok().flatten();
        let otherwise = || if self.apparmor_facts().enabled { "unconfined" } else { "" };
        document(view, &self.paths, profile.as_deref().unwrap_or_else(otherwise))
    }

    /// Not Docker's: what runs a container's virtual machine, and why that.
    fn with_machine(&self, view: &View, mut document: Value) -> Value {
        if let (Some(machine), Value::Object(fields)) = (self.machine_facts(&view.record), &mut document) {
            let facts = json!({
                "Monitor": machine.monitor,
                "Reason": machine.reason,
                "Kernel": machine.kernel,
                "Cpus": machine.cpus,
                "Memory": machine.memory,
            });
            fields.insert("Machine".to_owned(), facts);
        }
        document
    }

    /// The same with `SizeRw` and `SizeRootFs`, which take a walk over the container's files.
    ///
    /// # Errors
    /// [`crate::Error::NoContainer`].
    pub fn inspect_with_size(&self, container: &str) -> Result<Value> {
        let view = self.view(self.find(container)?)?;
        let sizes = self.sizes(&view.record)?;
        let mut document = self.with_machine(&view, self.document_of(&view));
        if let Value::Object(fields) = &mut document {
            fields.insert("SizeRw".to_owned(), json!(sizes.written));
            fields.insert("SizeRootFs".to_owned(), json!(sizes.total));
        }
        Ok(document)
    }
}

fn document(view: &View, paths: &Paths, apparmor: &str) -> Value {
    let record = &view.record;
    let config = &record.config;
    let dir = paths.container(&record.id);
    let log_path = match record.request.log {
        Some(LogPlan::None) => String::new(),
        _ => dir.join("log/container.log").to_string_lossy().into_owned(),
    };
    json!({
        "Id": record.id.as_str(),
        "Created": Stamp(i64::try_from(record.created).unwrap_or(0)),
        "Path": config.argv[0],
        "Args": config.argv[1..],
        "State": state(view),
        "Image": record.image.id,
        "ResolvConfPath": dir.join("resolv.conf"),
        "HostnamePath": dir.join("hostname"),
        "HostsPath": dir.join("hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", record.name),
        "RestartCount": view.status.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor,
        "ExecIDs": null,
        "HostConfig": host_config(view),
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": record.image.layers.iter().map(|l| l.to_string_lossy()).collect::<Vec<_>>().join(":"),
                "UpperDir": dir.join("upper"),
                "WorkDir": dir.join("work"),
            },
        },
        "Mounts": record.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs).map(mount).collect::<Vec<_>>(),
        "Config": container_config(view),
        "NetworkSettings": network_settings(view),
    })
}

fn state(view: &View) -> Value {
    let status = &view.status;
    let is = |kind| status.status == kind;
    let time = |stamp: Option<Stamp>| stamp.map_or_else(|| json!(ZERO_TIME), |s| json!(s));
    let mut state = json!({
        "Status": status_word(status.status),
        "Running": is(StatusKind::Running) || is(StatusKind::Paused) || is(StatusKind::Restarting),
        "Paused": is(StatusKind::Paused),
        "Restarting": is(StatusKind::Restarting),
        "OOMKilled": status.oom_killed,
        "Dead": false,
        "Pid": status.pid,
        "ExitCode": status.exit_code,
        "Error": status.error.clone().unwrap_or_default(),
        "StartedAt": time(status.started_at),
        "FinishedAt": time(status.finished_at),
        // Not Docker's: why it died, and what it was not given.
        "MemoryPeak": status.memory_peak,
        "MemoryLimit": status.memory_limit,
        "Withheld": status.withheld,
        "LogLost": status.log_lost,
    });
    if let Some(health) = health(status) {
        state["Health"] = health;
    }
    state
}

fn health(status: &Status) -> Option<Value> {
    let health = status.health.as_ref()?;
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|probe| {
            json!({
                "Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output,
            })
        })
        .collect();
    Some(json!({ "Status": health.status, "FailingStreak": health.failing_streak, "Log": log }))
}

/// Docker's word for a state.
#[must_use]
pub fn status_word(kind: StatusKind) -> &'static str {
    match kind {
        StatusKind::Created => "created",
        StatusKind::Running => "running",
        StatusKind::Paused => "paused",
        StatusKind::Restarting => "restarting",
        StatusKind::Exited => "exited",
    }
}

fn container_config(view: &View) -> Value {
    let (config, request) = (&view.record.config, &view.record.request);
    let set = |list: &[String]| list.iter().map(|p| (p.clone(), json!({}))).collect::<Map<_, _>>();
    let or_null = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let mut document = json!({
        "Hostname": config.hostname,
        "Domainname": request.domainname.clone().unwrap_or_default(),
        "User": config.user,
        "AttachStdin": request.attach.stdin,
        "AttachStdout": request.attach.stdout,
        "AttachStderr": request.attach.stderr,
        "Tty": request.tty,
        "OpenStdin": request.open_stdin,
        "StdinOnce": request.stdin_once,
        "Env": config.env,
        "Cmd": or_null(&config.cmd),
        "Image": request.image,
        "Volumes": if config.volumes.is_empty() { Value::Null } else { json!(set(&config.volumes)) },
        "WorkingDir": config.workdir,
        "Entrypoint": or_null(&config.entrypoint),
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal_name,
    });
    if !config.exposed.is_empty() {
        document["ExposedPorts"] = json!(set(&config.exposed));
    }
    if let Some(timeout) = request.stop_timeout {
        document["StopTimeout"] = json!(timeout);
    }
    if let Some(health) = &config.health {
        let mut test = vec!["CMD".to_owned()];
        test.extend(health.argv.iter().cloned());
        document["Healthcheck"] = json!({
            "Test": test,
            "Interval": u64::try_from(health.interval.as_nanos()).unwrap_or(0),
            "Timeout": u64::try_from(health.timeout.as_nanos()).unwrap_or(0),
            "StartPeriod": u64::try_from(health.start_period.as_nanos()).unwrap_or(0),
            "StartInterval": u64::try_from(health.start_interval.as_nanos()).unwrap_or(0),
            "Retries": health.retries,
        });
    }
    document
}

fn users_mode(mode: &UserNamespace) -> String {
    match mode {
        UserNamespace::Host => String::new(),
        UserNamespace::Auto { size: None } => "auto".to_owned(),
        UserNamespace::Auto { size: Some(size) } => format!("auto:size={size}"),
        UserNamespace::KeepId { uid, gid } => {
            let named = |name: &str, id: &Option<u32>| id.map(|id| format!("{name}={id}"));
            let ids: Vec<String> = [named("uid", uid), named("gid", gid)].into_iter().flatten().collect();
            if ids.is_empty() { "keep-id".to_owned() } else { format!("keep-id:{}", ids.join(",")) }
        }
        UserNamespace::NoMap => "nomap".to_owned(),
        UserNamespace::Map(_) => "private".to_owned(),
    }
}

/// As podman shows them; Docker has no word for it.
fn id_mappings(users: Option<&Users>) -> Value {
    let map = |ranges: &[IdMapping]| -> Vec<String> {
        ranges.iter().map(|m| format!("{}:{}:{}", m.container, m.host, m.size)).collect()
    };
    match users {
        Some(users) => json!({ "UidMap": map(&users.uids), "GidMap": map(&users.gids) }),
        None => Value::Null,
    }
}

fn host_config(view: &View) -> Value {
    let request = &view.record.request;
    let resources = &request.resources;
    let masked = request.privileged || request.security.unconfined_paths;
    let mut document = json!({
        "Binds": binds(view),
        "ContainerIDFile": "",
        "LogConfig": log_config(request.log.as_ref()),
        "NetworkMode": network_mode(&request.network),
        "PortBindings": port_bindings(view),
        "RestartPolicy": restart_policy(request.restart),
        "AutoRemove": request.auto_remove,
        "CapAdd": if request.cap_add.is_empty() { Value::Null } else { json!(request.cap_add) },
        "CapDrop": if request.cap_drop.is_empty() { Value::Null } else { json!(request.cap_drop) },
        "CgroupnsMode": namespace_mode(&request.cgroupns),
        "UsernsMode": users_mode(&request.userns),
        "IDMappings": id_mappings(view.record.users.as_ref()),
        "Dns": request.dns,
        "DnsOptions": request.dns_options,
        "DnsSearch": request.dns_search,
        "ExtraHosts": request.extra_hosts.iter().map(|(n, a)| format!("{n}:{a}")).collect::<Vec<_>>(),
        "GroupAdd": request.groups,
        "IpcMode": namespace_mode(&request.ipc),
        "OomScoreAdj": request.oom_score_adj.unwrap_or(0),
        "PidMode": match request.pid { NamespaceMode::Private => String::new(), ref mode => namespace_mode(mode) },
        "Privileged": request.privileged,
        "PublishAllPorts": request.publish_all,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": security(view),
        "UTSMode": match request.uts { NamespaceMode::Private => String::new(), ref mode => namespace_mode(mode) },
        "ShmSize": request.shm_size.unwrap_or(64 << 20),
        "Runtime": "cata",
        "Isolation": request.isolation,
        "Init": request.init,
        "Sysctls": request.sysctls,
    });
    let block = |kind, word: &str| -> Vec<Value> {
        let limits = resources.block.iter().filter(|limit| limit.kind == kind);
        limits.map(|limit| json!({"Path": limit.device, word: limit.value})).collect()
    };
    let limits = json!({
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "Memory": resources.memory.unwrap_or(0),
        "NanoCpus": resources.nano_cpus.unwrap_or(0),
        "CgroupParent": request.cgroup_parent.clone().unwrap_or_default(),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.clone().unwrap_or_default(),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwap": resources.memory_swap.or_else(|| resources.memory.and_then(|m| i64::try_from(m.saturating_mul(2)).ok())).unwrap_or(0),
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": resources.pids,
        "Ulimits": request.ulimits.iter().map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard})).collect::<Vec<_>>(),
        "Devices": request.devices.iter().map(|d| json!({"PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.access})).collect::<Vec<_>>(),
        "DeviceRequests": device_requests(request),
        "DeviceCgroupRules": request.device_rules.iter().map(device_rule).collect::<Vec<_>>(),
        "MemorySwappiness": resources.swappiness,
        "BlkioDeviceReadBps": block(BlockLimitKind::ReadBytes, "Rate"),
        "BlkioDeviceWriteBps": block(BlockLimitKind::WriteBytes, "Rate"),
        "BlkioDeviceReadIOps": block(BlockLimitKind::ReadOperations, "Rate"),
        "BlkioDeviceWriteIOps": block(BlockLimitKind::WriteOperations, "Rate"),
        "BlkioWeightDevice": block(BlockLimitKind::Weight, "Weight"),
        "MaskedPaths": if masked { Value::Null } else { json!(crate::plan::spec::MASKED) },
        "ReadonlyPaths": if masked { Value::Null } else { json!(crate::plan::spec::READ_ONLY) },
    });
    if let (Value::Object(document), Value::Object(limits)) = (&mut document, limits) {
        document.extend(limits);
    }
    document
}

/// Devices by name, as Docker has them.
fn device_requests(request: &CreateRequest) -> Vec<Value> {
    let mut list = Vec::new();
    if !request.device_names.is_empty() {
        list.push(json!({"Driver": "cdi", "Count": 0, "DeviceIDs": request.device_names, "Capabilities": null, "Options": null}));
    }
    list.extend(request.gpus.iter().map(|gpu| {
        let (count, ids) = match &gpu.gpus {
            Gpus::All => (-1, Value::Null),
            Gpus::Count(count) => (i64::from(*count), Value::Null),
            Gpus::Named(ids) => (0, json!(ids)),
        };
        let driver = gpu.driver.as_deref().unwrap_or_default();
        json!({"Driver": driver, "Count": count, "DeviceIDs": ids, "Capabilities": [["gpu"]], "Options": {}})
    }));
    list
}

/// `c 10:* rwm`.
fn device_rule(rule: &DeviceRule) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    format!("{} {}:{} {}", rule.kind, number(rule.major), number(rule.minor), rule.access)
}

fn security(view: &View) -> Value {
    let security = &view.record.request.security;
    let mut list: Vec<String> = Vec::new();
    if security.no_new_privileges {
        list.push("no-new-privileges".to_owned());
    }
    match &security.seccomp {
        SeccompRequest::Default => {}
        SeccompRequest::Unconfined => list.push("seccomp=unconfined".to_owned()),
        SeccompRequest::Profile(text) => list.push(format!("seccomp={text}")),
    }
    if security.unconfined_paths {
        list.push("systempaths=unconfined".to_owned());
    }
    list.extend(security.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    list.extend(security.label.iter().map(|label| format!("label={label}")));
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn binds(view: &View) -> Value {
    let list: Vec<String> = view
        .record
        .request
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match &mount.source {
                MountSource::Bind { path, .. } => path.to_string_lossy().into_owned(),
                MountSource::Volume { name: Some(name), .. } => name.to_string(),
                _ => return None,
            };
            let mode = if mount.read_only { ":ro" } else { "" };
            Some(format!("{source}:{}{mode}", mount.target))
        })
        .collect();
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn log_config(log: Option<&LogPlan>) -> Value {
    match log {
        Some(LogPlan::None) => json!({ "Type": "none", "Config": {} }),
        Some(LogPlan::JsonFile { max_size, max_file }) => json!({
            "Type": "json-file",
            "Config": { "max-size": max_size.to_string(), "max-file": max_file.to_string() },
        }),
        None => json!({ "Type": "json-file", "Config": {} }),
    }
}

/// `--network` as typed.
#[must_use]
pub fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Networks(list) => list.first().map_or("bridge", |e| e.network.as_str()).to_owned(),
    }
}

fn namespace_mode(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => "private".to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(name) => format!("container:{name}"),
        NamespaceMode::Shareable => "shareable".to_owned(),
        NamespaceMode::None => "none".to_owned(),
    }
}

fn restart_policy(policy: RestartPolicy) -> Value {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure { max } => ("on-failure", max.unwrap_or(0)),
    };
    json!({ "Name": name, "MaximumRetryCount": count })
}

fn mount(point: &MountPoint) -> Value {
    let propagation = point.options.first().cloned().unwrap_or_default();
    let mode = if point.read_only { "ro" } else { "" };
    match &point.kind {
        MountKind::Volume { name, .. } => json!({
            "Type": "volume", "Name": name, "Source": point.source, "Destination": point.target,
            "Driver": "local", "Mode": mode, "RW": !point.read_only, "Propagation": "",
        }),
        MountKind::Bind { .. } | MountKind::Tmpfs => json!({
            "Type": if point.kind == MountKind::Tmpfs { "tmpfs" } else { "bind" },
            "Source": point.source, "Destination": point.target,
            "Mode": mode, "RW": !point.read_only, "Propagation": propagation,
        }),
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// As asked for.
fn port_bindings(view: &View) -> Value {
    let mut map: Map<String, Value> = Map::new();
    for port in &view.record.request.ports {
        let key = format!("{}/{}", port.container_port, transport(port.transport));
        let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let host_port = match (port.host_port, port.host_port_last) {
            (0, _) => String::new(),
            (first, 0) => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        push(&mut map, key, json!({ "HostIp": host_ip, "HostPort": host_port }));
    }
    Value::Object(map)
}

/// As really published; exposed ports without a binding are `null`.
fn ports(view: &View) -> Value {
    let mut map: Map<String, Value> = Map::new();
    if view.status.pid != 0 {
        for exposed in &view.record.config.exposed {
            map.insert(exposed.clone(), Value::Null);
        }
    }
    for port in &view.network.ports {
        let key = format!("{}/{}", port.container_port, transport(port.transport));
        let binding = json!({ "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string() });
        push(&mut map, key, binding);
    }
    Value::Object(map)
}

fn push(map: &mut Map<String, Value>, key: String, binding: Value) {
    let entry = map.entry(key).or_insert(Value::Null);
    match entry {
        Value::Array(list) => list.push(binding),
        other => *other = Value::Array(vec![binding]),
    }
}

fn network_settings(view: &View) -> Value {
    let first = view.network.endpoints.first();
    let mut networks: Map<String, Value> = view
        .network
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.network.to_string(), endpoint_document(endpoint, view)))
        .collect();
    if networks.is_empty() {
        match &view.record.request.network {
            NetworkMode::Container(_) => {}
            mode @ (NetworkMode::Host | NetworkMode::None) => {
                networks.insert(network_mode(mode), empty_endpoint(None));
            }
            NetworkMode::Networks(_) => networks.extend(
                view.record
                    .endpoints()
                    .iter()
                    .map(|wish| (wish.network.to_string(), empty_endpoint(Some(wish)))),
            ),
        }
    }
    json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": if view.status.pid == 0 { String::new() } else { format!("/proc/{}/ns/net", view.status.pid) },
        "Ports": ports(view),
        "EndpointID": first.map(|e| e.endpoint_id.clone()).unwrap_or_default(),
        "Gateway": first.and_then(|e| e.gateway4).map(|g| g.to_string()).unwrap_or_default(),
        "GlobalIPv6Address": first.and_then(|e| e.ipv6).map(|a| a.0.to_string()).unwrap_or_default(),
        "GlobalIPv6PrefixLen": first.and_then(|e| e.ipv6).map_or(0, |a| a.1),
        "IPAddress": first.and_then(|e| e.ipv4).map(|a| a.0.to_string()).unwrap_or_default(),
        "IPPrefixLen": first.and_then(|e| e.ipv4).map_or(0, |a| a.1),
        "IPv6Gateway": first.and_then(|e| e.gateway6).map(|g| g.to_string()).unwrap_or_default(),
        "MacAddress": first.map(|e| mac(e.mac)).unwrap_or_default(),
        "Networks": networks,
    })
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

fn endpoint_document(endpoint: &Endpoint, view: &View) -> Value {
    let dns_names = if endpoint.network.as_str() == "bridge" { Value::Null } else { json!(endpoint.aliases) };
    let wishes = view.record.endpoints();
    let wish = wishes.iter().find(|wish| wish.network == endpoint.network);
    json!({
        "IPAMConfig": wish.map_or(Value::Null, addresses_asked),
        "Links": wish.map_or(Value::Null, links),
        "Aliases": wish.map_or(Value::Null, aliases),
        "MacAddress": mac(endpoint.mac),
        "DriverOpts": null,
        "GwPriority": endpoint.gateway_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway4.map(|g| g.to_string()).unwrap_or_default(),
        "IPAddress": endpoint.ipv4.map(|a| a.0.to_string()).unwrap_or_default(),
        "IPPrefixLen": endpoint.ipv4.map_or(0, |a| a.1),
        "IPv6Gateway": endpoint.gateway6.map(|g| g.to_string()).unwrap_or_default(),
        "GlobalIPv6Address": endpoint.ipv6.map(|a| a.0.to_string()).unwrap_or_default(),
        "GlobalIPv6PrefixLen": endpoint.ipv6.map_or(0, |a| a.1),
        "DNSNames": dns_names,
    })
}

/// The addresses that were asked for.
fn addresses_asked(wish: &EndpointRequest) -> Value {
    let mut asked = Map::new();
    if let Some(address) = wish.ipv4 {
        asked.insert("IPv4Address".to_owned(), json!(address));
    }
    if let Some(address) = wish.ipv6 {
        asked.insert("IPv6Address".to_owned(), json!(address));
    }
    if asked.is_empty() { Value::Null } else { Value::Object(asked) }
}

fn links(wish: &EndpointRequest) -> Value {
    let links: Vec<String> = wish.links.iter().map(|link| format!("{}:{}", link.to, link.alias)).collect();
    if links.is_empty() { Value::Null } else { json!(links) }
}

fn aliases(wish: &EndpointRequest) -> Value {
    if wish.aliases.is_empty() { Value::Null } else { json!(wish.aliases) }
}

/// Not running: Docker still names what it would join.
fn empty_endpoint(wish: Option<&EndpointRequest>) -> Value {
    json!({
        "IPAMConfig": wish.map_or(Value::Null, addresses_asked),
        "Links": wish.map_or(Value::Null, links),
        "Aliases": wish.map_or(Value::Null, aliases), "MacAddress": "", "DriverOpts": null,
        "GwPriority": wish.map_or(0, |wish| wish.gateway_priority), "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
        "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
    })
}
