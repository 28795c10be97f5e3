//! Keys of a service that are flags of `create` under another name: one grammar for ports, sizes and the like,
//! the command line's.

use crate::error::Result;
use crate::fields::{Fields, items, text, unsupported, wrong};
use crate::node::Value;
use crate::service::Borrow;

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

/// What these keys say.
pub(crate) struct Said {
    /// Flags that need no other part of the project.
    pub(crate) flags: Vec<String>,
    /// Those that name another service's container.
    pub(crate) borrows: Vec<Borrow>,
    /// `healthcheck.test` as a program and its arguments.
    pub(crate) probe: Vec<String>,
    /// `deploy.replicas`.
    pub(crate) replicas: Option<u32>,
}

/// PURE: takes its keys out of a service's.
pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Said> {
    let (mut flags, mut borrows, mut probe) = (Vec::new(), Vec::new(), Vec::new());
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
    namespaces(fields, &mut flags, &mut borrows)?;
    ports(fields, &mut flags)?;
    hosts(fields, &mut flags)?;
    devices(fields, &mut flags)?;
    ulimits(fields, &mut flags)?;
    logging(fields, &mut flags)?;
    health(fields, &mut flags, &mut probe)?;
    if let Some(node) = fields.take("stop_grace_period") {
        let seconds = seconds(&text(node, "stop_grace_period")?);
        let seconds = seconds.ok_or_else(|| wrong(node, "stop_grace_period", "a duration, such as 1m30s"))?;
        flags.push(format!("--stop-timeout={seconds}"));
    }
    let replicas = deploy(fields, &mut flags)?;
    Ok(Said { flags, borrows, probe, replicas })
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

pub(crate) fn borrow(before: String, service: &str, after: &str) -> Borrow {
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

pub(crate) fn ulimits(fields: &mut Fields<'_>, flags: &mut Vec<String>) -> Result<()> {
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
