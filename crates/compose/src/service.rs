//! A service: its keys, read into what `cata create` and `cata build` would be told.
//!
//! Most keys of a service are flags of `create` under another name. They are kept as such ([`Service::flags`]),
//! so that there is one grammar for ports, mounts, sizes and the like: the command line's.

use std::collections::BTreeMap;

use crate::error::{Error, Place, Result};
use crate::fields::{Fields, items, text, unsupported, wrong};
use crate::node::{Node, Value};
use crate::project::Around;
use crate::{build, mount, variable};

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its key.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// As written.
    pub image: Option<String>,
    /// How its image is made.
    pub build: Option<build::Build>,
    /// `container_name`.
    pub container_name: Option<String>,
    /// In place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's.
    pub command: Vec<String>,
    /// With those of files.
    pub environment: BTreeMap<String, String>,
    /// Without those of Compose.
    pub labels: BTreeMap<String, String>,
    /// Flags of `create` that need no other part of the project.
    pub flags: Vec<String>,
    /// `healthcheck.test` as a program and its arguments.
    pub probe: Vec<String>,
    /// What it is connected to.
    pub network: Network,
    /// Whose namespaces, volumes or name it takes: flags of `create` and the services they name.
    pub borrows: Vec<Borrow>,
    /// `volumes`, `secrets`, `configs`.
    pub mounts: Vec<mount::Mount>,
    /// Who has to be there before it.
    pub depends_on: Vec<Dependency>,
    /// When it is meant; always, if there are none.
    pub profiles: Vec<String>,
    /// How many containers.
    pub scale: u32,
    /// When its image is pulled.
    pub pull: Pull,
    /// A terminal.
    pub tty: bool,
    /// Standard input.
    pub open_stdin: bool,
    /// Whether `up` shows what it writes.
    pub attach: bool,
}

/// `network_mode` and `networks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Those, by key.
    Networks(Vec<Attachment>),
    /// As `--network` has it.
    Mode(String),
    /// That of another service's container: in [`Service::borrows`].
    Borrowed,
}

/// A place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network's key.
    pub network: String,
    /// Further fields of `--network`: `alias=…`, `ip=…`.
    pub fields: Vec<String>,
    /// Who is connected first.
    pub priority: i64,
    /// Where it is said.
    pub place: Place,
}

/// A flag of `create` that names another service's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrow {
    /// What stands before the container's name (`--pid=container:`).
    pub before: String,
    /// The service.
    pub service: String,
    /// What stands behind it.
    pub after: String,
}

/// Another service that has to be there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Which.
    pub service: String,
    /// In which state.
    pub condition: Condition,
    /// Whether this one is restarted when that one is.
    pub restart: bool,
    /// Whether it is a failure when that one is not.
    pub required: bool,
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Started,
    /// Its health check says so.
    Healthy,
    /// It has ended well.
    Completed,
}

impl Condition {
    /// As the specification has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "service_started",
            Self::Healthy => "service_healthy",
            Self::Completed => "service_completed_successfully",
        }
    }
}

/// `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// When it is not there.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
    /// It is built each time.
    Build,
}

impl Service {
    /// `platform`.
    #[must_use]
    pub fn platform(&self) -> Option<&str> {
        self.flags.iter().find_map(|flag| flag.strip_prefix("--platform="))
    }
}

/// Keys that are flags of `create`, as they are.
const TEXTS: &[(&str, &str)] = &[
    ("user", "--user"),
    ("working_dir", "--workdir"),
    ("hostname", "--hostname"),
    ("domainname", "--domainname"),
    ("platform", "--platform"),
    ("uts", "--uts"),
    ("userns_mode", "--userns"),
    ("isolation", "--isolation"),
    ("cgroup", "--cgroupns"),
    ("cgroup_parent", "--cgroup-parent"),
    ("mac_address", "--mac-address"),
    ("stop_signal", "--stop-signal"),
    ("restart", "--restart"),
    ("shm_size", "--shm-size"),
    ("mem_limit", "--memory"),
    ("mem_reservation", "--memory-reservation"),
    ("memswap_limit", "--memory-swap"),
    ("mem_swappiness", "--memory-swappiness"),
    ("cpus", "--cpus"),
    ("cpu_shares", "--cpu-shares"),
    ("cpu_quota", "--cpu-quota"),
    ("cpu_period", "--cpu-period"),
    ("cpuset", "--cpuset-cpus"),
    ("pids_limit", "--pids-limit"),
    ("oom_score_adj", "--oom-score-adj"),
    ("gpus", "--gpus"),
];

const FLAGS: &[(&str, &str)] = &[
    ("init", "--init"),
    ("read_only", "--read-only"),
    ("privileged", "--privileged"),
    ("oom_kill_disable", "--oom-kill-disable"),
];

const LISTS: &[(&str, &str)] = &[
    ("cap_add", "--cap-add"),
    ("cap_drop", "--cap-drop"),
    ("dns", "--dns"),
    ("dns_search", "--dns-search"),
    ("dns_opt", "--dns-option"),
    ("group_add", "--group-add"),
    ("security_opt", "--security-opt"),
    ("device_cgroup_rules", "--device-cgroup-rule"),
    ("expose", "--expose"),
    ("tmpfs", "--tmpfs"),
];

const UNSUPPORTED: &[&str] = &[
    "blkio_config",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "external_links",
    "label_file",
    "models",
    "post_start",
    "pre_stop",
    "provider",
    "runtime",
    "storage_opt",
    "use_api_socket",
    "volume_driver",
];

/// PURE, but for the files that it names: a service of its keys.
pub(crate) fn read(name: &str, node: &Node, around: &Around<'_>) -> Result<Service> {
    let mut fields = Fields::of(node, format!("services.{name}"))?;
    let mut flags = Vec::new();
    for (key, flag) in TEXTS {
        flags.extend(fields.text(key)?.map(|text| format!("{flag}={text}")));
    }
    for (key, flag) in FLAGS {
        flags.extend(fields.flag(key)?.then(|| (*flag).to_owned()));
    }
    for (key, flag) in LISTS {
        flags.extend(fields.texts(key)?.into_iter().map(|text| format!("{flag}={text}")));
    }
    for (key, flag) in [("sysctls", "--sysctl"), ("annotations", "--annotation")] {
        let pairs = fields.pairs(key)?.into_iter();
        flags.extend(pairs.map(|(name, value)| format!("{flag}={name}={}", value.unwrap_or_default())));
    }
    let mut borrows = Vec::new();
    namespaces(&mut fields, &mut flags, &mut borrows)?;
    ports(&mut fields, &mut flags)?;
    hosts(&mut fields, &mut flags)?;
    devices(&mut fields, &mut flags)?;
    ulimits(&mut fields, &mut flags)?;
    logging(&mut fields, &mut flags)?;
    let mut probe = Vec::new();
    health(&mut fields, &mut flags, &mut probe)?;
    if let Some(node) = fields.take("stop_grace_period") {
        let seconds = seconds(&text(node, "stop_grace_period")?);
        let seconds = seconds.ok_or_else(|| wrong(node, "stop_grace_period", "a duration, such as 1m30s"))?;
        flags.push(format!("--stop-timeout={seconds}"));
    }
    let scale = deploy(&mut fields, &mut flags)?;
    let scale = fields.number("scale")?.or(scale).unwrap_or(1);
    let network = network(&mut fields, &mut borrows)?;
    let depends_on = depends_on(&mut fields, &borrows)?;
    let service = Service {
        name: name.to_owned(),
        place: node.place.clone(),
        image: fields.text("image")?,
        build: build::read(&mut fields, around)?,
        container_name: fields.text("container_name")?,
        entrypoint: words(&mut fields, "entrypoint")?,
        command: words(&mut fields, "command")?.unwrap_or_default(),
        environment: environment(&mut fields, around)?,
        labels: labels(&mut fields)?,
        flags,
        probe,
        network,
        borrows,
        mounts: mount::read(&mut fields, around)?,
        depends_on,
        profiles: fields.texts("profiles")?,
        scale,
        pull: pull(&mut fields)?,
        tty: fields.flag("tty")?,
        open_stdin: fields.flag("stdin_open")?,
        attach: fields.flag_if_any("attach")?.unwrap_or(true),
    };
    // What `watch` would do: it says nothing of a container.
    fields.take("develop");
    fields.finish(UNSUPPORTED)?;
    if service.image.is_none() && service.build.is_none() {
        return Err(wrong(node, &format!("services.{name}"), "a mapping with an image or a build"));
    }
    Ok(service)
}

/// A command line: a list, or text as a shell would split it.
fn words(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<Vec<String>>> {
    let name = fields.name(key);
    let Some(node) = fields.take(key) else { return Ok(None) };
    match &node.value {
        Value::List(list) => list.iter().map(|item| text(item, &name)).collect::<Result<_>>().map(Some),
        _ => {
            let split = shlex::split(&text(node, &name)?);
            split.ok_or_else(|| wrong(node, &name, "a command line with its quotes closed")).map(Some)
        }
    }
}

pub(crate) fn labels(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>> {
    let pairs = fields.pairs("labels")?.into_iter();
    Ok(pairs.map(|(name, value)| (name, value.unwrap_or_default())).collect())
}

fn environment(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let name = fields.name("env_file");
    for item in fields.take("env_file").map(items).unwrap_or_default() {
        let (path, required) = match item.value {
            Value::Map(_) => {
                let mut file = Fields::of(item, name.clone())?;
                let path = file.text("path")?;
                let required = file.flag_if_any("required")?.unwrap_or(true);
                file.finish(&["format"])?;
                (path.ok_or_else(|| wrong(item, &name, "a mapping with a path"))?, required)
            }
            _ => (text(item, &name)?, true),
        };
        let path = around.path(&path);
        let content = match (around.read)(&path) {
            Ok(content) => content,
            Err(_) if !required => continue,
            Err(why) => return Err(Error::Read { place: item.place.clone(), path, why }),
        };
        let read = variable::env_file(&content, around.variable).map_err(|(line, why)| Error::Read {
            place: item.place.clone(),
            path,
            why: format!("line {line}: {why}"),
        })?;
        all.extend(read);
    }
    for (name, value) in fields.pairs("environment")? {
        match value.or_else(|| (around.variable)(&name)) {
            Some(value) => drop(all.insert(name, value)),
            // A name without a value anywhere: not set, whatever a file says.
            None => drop(all.remove(&name)),
        }
    }
    Ok(all)
}

/// `pid`, `ipc`, `volumes_from`, `links`: a word for all, or another's.
fn namespaces(fields: &mut Fields<'_>, flags: &mut Vec<String>, borrows: &mut Vec<Borrow>) -> Result<()> {
    for (key, flag) in [("pid", "--pid"), ("ipc", "--ipc")] {
        if let Some(text) = fields.text(key)? {
            match text.strip_prefix("service:") {
                Some(service) => borrows.push(borrow(format!("{flag}=container:"), service, "")),
                None => flags.push(format!("{flag}={text}")),
            }
        }
    }
    for text in fields.texts("volumes_from")? {
        match text.strip_prefix("container:") {
            Some(container) => flags.push(format!("--volumes-from={container}")),
            None => {
                let (service, mode) = text.split_once(':').unwrap_or((&text, ""));
                let after = if mode.is_empty() { String::new() } else { format!(":{mode}") };
                borrows.push(borrow("--volumes-from=".to_owned(), service, &after));
            }
        }
    }
    for text in fields.texts("links")? {
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        borrows.push(borrow("--link=".to_owned(), service, &format!(":{alias}")));
    }
    Ok(())
}

fn borrow(before: String, service: &str, after: &str) -> Borrow {
    Borrow { before, service: service.to_owned(), after: after.to_owned() }
}

fn ports(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
    let name = fields.name("ports");
    for item in fields.take("ports").map(items).unwrap_or_default() {
        let Value::Map(_) = item.value else {
            flags.push(format!("--publish={}", text(item, &name)?));
            continue;
        };
        let mut port = Fields::of(item, name.clone())?;
        let target = port.text("target")?.ok_or_else(|| wrong(item, &name, "a mapping with a target"))?;
        let (published, host) = (port.text("published")?, port.text("host_ip")?);
        let protocol = port.text("protocol")?.unwrap_or_else(|| "tcp".to_owned());
        if let Some(mode) = port.text("mode")?
            && !matches!(mode.as_str(), "host" | "ingress")
        {
            return Err(wrong(item, &port.name("mode"), "host or ingress"));
        }
        // Notes for people.
        port.take("name");
        port.take("app_protocol");
        port.finish(&[])?;
        let host = match host {
            Some(ip) if ip.contains(':') => format!("[{ip}]:"),
            Some(ip) => format!("{ip}:"),
            None => String::new(),
        };
        let published = match published {
            Some(published) => format!("{published}:"),
            None if host.is_empty() => String::new(),
            None => ":".to_owned(),
        };
        flags.push(format!("--publish={host}{published}{target}/{protocol}"));
    }
    Ok(())
}

/// `name:address`, `name=address`, or a mapping of names to one or more.
fn hosts(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
    let name = fields.name("extra_hosts");
    let Some(node) = fields.take("extra_hosts") else { return Ok(()) };
    if let Value::Map(entries) = &node.value {
        for (host, node) in entries {
            for item in items(node) {
                flags.push(format!("--add-host={host}:{}", text(item, &name)?));
            }
        }
        return Ok(());
    }
    for item in items(node) {
        flags.push(format!("--add-host={}", text(item, &name)?.replacen('=', ":", 1)));
    }
    Ok(())
}

fn devices(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
    let name = fields.name("devices");
    for item in fields.take("devices").map(items).unwrap_or_default() {
        let Value::Map(_) = item.value else {
            flags.push(format!("--device={}", text(item, &name)?));
            continue;
        };
        let mut device = Fields::of(item, name.clone())?;
        let source = device.text("source")?.ok_or_else(|| wrong(item, &name, "a mapping with a source"))?;
        let target = device.text("target")?.unwrap_or_else(|| source.clone());
        let access = device.text("permissions")?.unwrap_or_else(|| "rwm".to_owned());
        device.finish(&[])?;
        flags.push(format!("--device={source}:{target}:{access}"));
    }
    Ok(())
}

fn ulimits(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
    let name = fields.name("ulimits");
    let Some(node) = fields.take("ulimits") else { return Ok(()) };
    let Value::Map(entries) = &node.value else { return Err(wrong(node, &name, "a mapping")) };
    for (limit, node) in entries {
        if let Value::Map(_) = node.value {
            let mut both = Fields::of(node, format!("{name}.{limit}"))?;
            let (soft, hard) = (both.text("soft")?, both.text("hard")?);
            both.finish(&[])?;
            let (Some(soft), Some(hard)) = (soft, hard) else {
                return Err(wrong(node, &format!("{name}.{limit}"), "a number, or soft and hard"));
            };
            flags.push(format!("--ulimit={limit}={soft}:{hard}"));
        } else {
            flags.push(format!("--ulimit={limit}={}", text(node, &name)?));
        }
    }
    Ok(())
}

fn logging(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
    let name = fields.name("logging");
    let Some(node) = fields.take("logging") else { return Ok(()) };
    let mut logging = Fields::of(node, name)?;
    flags.extend(logging.text("driver")?.map(|driver| format!("--log-driver={driver}")));
    for (key, value) in logging.pairs("options")? {
        flags.push(format!("--log-opt={key}={}", value.unwrap_or_default()));
    }
    logging.finish(&[])
}

fn health(fields: &mut Fields<'_>, flags: &mut Vec<String>, probe: &mut Vec<String>) -> Result<()> {
    let name = fields.name("healthcheck");
    let Some(node) = fields.take("healthcheck") else { return Ok(()) };
    let mut health = Fields::of(node, name.clone())?;
    if health.flag("disable")? {
        flags.push("--no-healthcheck".to_owned());
    }
    if let Some(test) = health.take("test") {
        let wanted = "text, or a list that begins with CMD, CMD-SHELL or NONE";
        let shell = |command: &str| format!("--health-cmd={command}");
        if let Value::List(list) = &test.value {
            let words = list.iter().map(|item| text(item, &name)).collect::<Result<Vec<String>>>()?;
            match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["NONE"] => flags.push("--no-healthcheck".to_owned()),
                ["CMD-SHELL", command] => flags.push(shell(command)),
                ["CMD", _, ..] => probe.extend(words.into_iter().skip(1)),
                _ => return Err(wrong(test, &format!("{name}.test"), wanted)),
            }
        } else {
            flags.push(shell(&text(test, &name)?));
        }
    }
    for (key, flag) in [
        ("interval", "--health-interval"),
        ("timeout", "--health-timeout"),
        ("start_period", "--health-start-period"),
        ("start_interval", "--health-start-interval"),
        ("retries", "--health-retries"),
    ] {
        flags.extend(health.text(key)?.map(|value| format!("{flag}={value}")));
    }
    health.finish(&[])
}

/// `deploy`, as far as it is about one host; answers `replicas`.
fn deploy(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<Option<u32>> {
    let name = fields.name("deploy");
    let Some(node) = fields.take("deploy") else { return Ok(None) };
    let mut deploy = Fields::of(node, name.clone())?;
    let replicas = deploy.number("replicas")?;
    if let Some(mode) = deploy.text("mode")?
        && mode != "replicated"
    {
        return Err(unsupported(node, format!("{name}.mode {mode}")));
    }
    if let Some(node) = deploy.take("resources") {
        let mut resources = Fields::of(node, format!("{name}.resources"))?;
        if let Some(node) = resources.take("limits") {
            let mut limits = Fields::of(node, format!("{name}.resources.limits"))?;
            for (key, flag) in [("cpus", "--cpus"), ("memory", "--memory"), ("pids", "--pids-limit")] {
                flags.extend(limits.text(key)?.map(|value| format!("{flag}={value}")));
            }
            limits.finish(&["devices"])?;
        }
        if let Some(node) = resources.take("reservations") {
            let mut kept = Fields::of(node, format!("{name}.resources.reservations"))?;
            flags.extend(kept.text("memory")?.map(|value| format!("--memory-reservation={value}")));
            kept.finish(&["cpus", "devices", "generic_resources"])?;
        }
        resources.finish(&[])?;
    }
    if let Some(node) = deploy.take("restart_policy") {
        let mut policy = Fields::of(node, format!("{name}.restart_policy"))?;
        let attempts: Option<u32> = policy.number("max_attempts")?;
        let restart = match policy.text("condition")?.as_deref() {
            None | Some("any") => "always".to_owned(),
            Some("none") => "no".to_owned(),
            Some("on-failure") => match attempts {
                Some(attempts) => format!("on-failure:{attempts}"),
                None => "on-failure".to_owned(),
            },
            Some(_) => return Err(wrong(node, &policy.name("condition"), "none, on-failure or any")),
        };
        policy.finish(&["delay", "window"])?;
        flags.push(format!("--restart={restart}"));
    }
    deploy.finish(&["endpoint_mode", "labels", "placement", "rollback_config", "update_config"])?;
    Ok(replicas)
}

fn network(fields: &mut Fields<'_>, borrows: &mut Vec<Borrow>) -> Result<Network> {
    let mode = fields.take("network_mode");
    let name = fields.name("networks");
    let Some(node) = fields.take("networks") else {
        let Some(mode) = mode else {
            let place = fields.node.place.clone();
            let default =
                Attachment { network: "default".to_owned(), fields: Vec::new(), priority: 0, place };
            return Ok(Network::Networks(vec![default]));
        };
        let mode = text(mode, "network_mode")?;
        if let Some(service) = mode.strip_prefix("service:") {
            borrows.push(borrow("--network=container:".to_owned(), service, ""));
            return Ok(Network::Borrowed);
        }
        return Ok(Network::Mode(mode));
    };
    if let Some(mode) = mode {
        return Err(wrong(mode, &fields.name("network_mode"), "absent where there are networks"));
    }
    let node = crate::merge::pairs(node.clone())?;
    let Value::Map(entries) = &node.value else { return Err(wrong(&node, &name, "a list or a mapping")) };
    let mut list = Vec::new();
    for (network, node) in entries {
        let mut place = Fields::of(node, format!("{name}.{network}"))?;
        let mut all: Vec<String> =
            place.texts("aliases")?.into_iter().map(|alias| format!("alias={alias}")).collect();
        for (key, field) in [
            ("ipv4_address", "ip"),
            ("ipv6_address", "ip6"),
            ("mac_address", "mac-address"),
            ("gw_priority", "gw-priority"),
        ] {
            all.extend(place.text(key)?.map(|value| format!("{field}={value}")));
        }
        let priority = place.number("priority")?.unwrap_or(0);
        place.finish(&["driver_opts", "interface_name", "link_local_ips"])?;
        list.push(Attachment { network: network.clone(), fields: all, priority, place: node.place.clone() });
    }
    // Docker's clients connect the weightiest first, and else by name.
    list.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.network.cmp(&b.network)));
    Ok(Network::Networks(list))
}

fn depends_on(fields: &mut Fields<'_>, borrows: &[Borrow]) -> Result<Vec<Dependency>> {
    let name = fields.name("depends_on");
    let mut list: Vec<Dependency> = Vec::new();
    if let Some(node) = fields.take("depends_on") {
        let node = crate::merge::pairs(node.clone())?;
        let Value::Map(entries) = &node.value else {
            return Err(wrong(&node, &name, "a list or a mapping"));
        };
        for (service, node) in entries {
            let mut one = Fields::of(node, format!("{name}.{service}"))?;
            let condition = match one.text("condition")?.as_deref() {
                None | Some("service_started") => Condition::Started,
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                Some(_) => {
                    let wanted = "service_started, service_healthy or service_completed_successfully";
                    return Err(wrong(node, &one.name("condition"), wanted));
                }
            };
            let restart = one.flag("restart")?;
            let required = one.flag_if_any("required")?.unwrap_or(true);
            one.finish(&[])?;
            list.push(Dependency { service: service.clone(), condition, restart, required });
        }
    }
    for borrow in borrows {
        if !list.iter().any(|have| have.service == borrow.service) {
            list.push(Dependency {
                service: borrow.service.clone(),
                condition: Condition::Started,
                restart: false,
                required: true,
            });
        }
    }
    Ok(list)
}

fn pull(fields: &mut Fields<'_>) -> Result<Pull> {
    let name = fields.name("pull_policy");
    let Some(node) = fields.take("pull_policy") else { return Ok(Pull::Missing) };
    match text(node, &name)?.as_str() {
        "missing" | "if_not_present" => Ok(Pull::Missing),
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        "build" => Ok(Pull::Build),
        word @ ("daily" | "weekly") => Err(unsupported(node, format!("{name} {word}"))),
        word if word.starts_with("every_") => Err(unsupported(node, format!("{name} {word}"))),
        _ => Err(wrong(node, &name, "always, missing, never or build")),
    }
}

/// PURE: whole seconds of `1m30s`, rounded up.
fn seconds(text: &str) -> Option<u64> {
    let mut millis: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match rest.get(..unit)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        millis = millis.checked_add(number.checked_mul(scale)?)?;
        rest = rest.get(unit..)?;
    }
    Some(millis.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_rounded_up() {
        for (text, wanted) in [
            ("1m30s", Some(90)),
            ("500ms", Some(1)),
            ("2h", Some(7200)),
            ("10", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text}");
        }
    }
}
