//! Containers in `ps`: their facts, the cells of a line, and the filters.

use std::collections::BTreeMap;

use cata_engine::container::inspect::status_word;
use cata_engine::container::live::View;
use cata_engine::container::size::Sizes;
use cata_engine::health::HealthStatus;
use cata_engine::networks::request::Transport;
use cata_engine::record::MountKind;
use cata_engine::request::NetworkMode;
use cata_engine::status::StatusKind;
use jiff::tz::TimeZone;

use super::port::{self, Port};
use crate::parse::filter::{Filters, label_matches};
use crate::parse::{ParseError, Parsed};
use crate::render::listing::{Kind, Row};
use crate::render::{size, table, time};

/// How `ps` looks.
pub(crate) const KIND: Kind = Kind {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

/// How `ps -s` looks.
pub(crate) const KIND_WITH_SIZES: Kind = Kind {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: HEADINGS,
};

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// The names `--filter` knows.
pub(crate) const FILTERS: [&str; 14] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "isolation",
];

/// What is known of one container, free of the engine's types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) platform: String,
    pub(crate) command: Vec<String>,
    pub(crate) created: u64,
    pub(crate) state: &'static str,
    pub(crate) started: Option<u64>,
    pub(crate) finished: Option<u64>,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    pub(crate) health: Option<HealthStatus>,
    pub(crate) ports: Vec<Port>,
    /// What was asked for, running or not: the container's port, its protocol, and whether it is published.
    pub(crate) asked_ports: Vec<(u16, String, bool)>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Source (or volume name) and target.
    pub(crate) mounts: Vec<(String, String)>,
    pub(crate) volumes: usize,
    pub(crate) networks: Vec<String>,
    /// Only where they are asked for: measuring takes a walk over all files.
    pub(crate) sizes: Option<Sizes>,
}

/// The engine's view as facts.
pub(crate) fn from_view(view: &View) -> Container {
    let (record, status) = (&view.record, &view.status);
    let nanos = |stamp: Option<cata_engine::Stamp>| stamp.and_then(|s| u64::try_from(s.unix_nanos()).ok());
    let networks = match &record.request.network {
        NetworkMode::Networks(_) => record.endpoints().iter().map(|e| e.network.to_string()).collect(),
        NetworkMode::None => vec!["none".to_owned()],
        NetworkMode::Host => vec!["host".to_owned()],
        NetworkMode::Container(_) => Vec::new(),
    };
    Container {
        id: record.id.to_string(),
        name: record.name.to_string(),
        image: record.image.reference.clone(),
        image_id: record.image.id.clone(),
        platform: record.image.platform.clone(),
        command: record.config.argv.clone(),
        created: record.created,
        state: status_word(status.status),
        started: nanos(status.started_at),
        finished: nanos(status.finished_at),
        exit_code: status.exit_code,
        oom_killed: status.oom_killed,
        health: if status.status == StatusKind::Running {
            status.health.as_ref().map(|h| h.status)
        } else {
            None
        },
        ports: ports(view),
        asked_ports: asked_ports(view),
        labels: record.config.labels.clone(),
        mounts: record
            .mounts
            .iter()
            .map(|mount| match &mount.kind {
                MountKind::Volume { name, .. } => (name.to_string(), mount.target.clone()),
                _ => (mount.source.to_string_lossy().into_owned(), mount.target.clone()),
            })
            .collect(),
        volumes: record.mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume { .. })).count(),
        networks,
        sizes: None,
    }
}

/// Published ports, and those that are only declared (of containers that run).
fn ports(view: &View) -> Vec<Port> {
    if !matches!(view.status.status, StatusKind::Running | StatusKind::Paused) {
        return Vec::new();
    }
    let published = view.network.ports.iter().map(|p| Port {
        container: p.container_port,
        protocol: match p.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        },
        host: Some((p.host_ip, p.host_port)),
    });
    let mut ports: Vec<Port> = published.collect();
    // In the host's network nothing is between, so nothing is listed.
    if matches!(view.record.request.network, NetworkMode::Host | NetworkMode::Container(_)) {
        return ports;
    }
    for exposed in &view.record.config.exposed {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let protocol = if protocol == "udp" { "udp" } else { "tcp" };
        if let Ok(container) = number.parse()
            && !ports.iter().any(|p| p.container == container && p.protocol == protocol)
        {
            ports.push(Port { container, protocol, host: None });
        }
    }
    ports
}

/// Ports that were asked for: those to publish, then those only declared.
fn asked_ports(view: &View) -> Vec<(u16, String, bool)> {
    let request = &view.record.request;
    let word = |transport| match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let mut ports: Vec<(u16, String, bool)> =
        request.ports.iter().map(|p| (p.container_port, word(p.transport).to_owned(), true)).collect();
    for exposed in &view.record.config.exposed {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        if let Ok(number) = number.parse() {
            ports.push((number, protocol.to_owned(), request.publish_all));
        }
    }
    ports
}

/// Docker's STATUS: `Up 5 seconds (healthy)`, `Exited (0) 2 minutes ago`; the OOM killer is named.
pub(crate) fn status(container: &Container, now: u64) -> String {
    let facts = (container.state, container.exit_code, container.oom_killed, container.health);
    status_text(facts, (container.started, container.finished), now)
}

/// The same of a state, an exit code, the OOM killer and a health; of a start and an end.
pub(crate) fn status_text(
    (state, exit_code, oom_killed, health): (&str, i32, bool, Option<HealthStatus>),
    (started, finished): (Option<u64>, Option<u64>),
    now: u64,
) -> String {
    let since = |moment: Option<u64>| time::span(now.saturating_sub(moment.unwrap_or(now)));
    match state {
        "running" => {
            let health = match health {
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
                None => "",
            };
            format!("Up {}{health}", since(started))
        }
        "paused" => format!("Up {} (Paused)", since(started)),
        "restarting" => format!("Restarting ({exit_code}) {} ago", since(finished)),
        "exited" => {
            let oom = if oom_killed { " (OOM killed)" } else { "" };
            format!("Exited ({exit_code}) {} ago{oom}", since(finished))
        }
        _ => "Created".to_owned(),
    }
}

/// The cells of one line.
pub(crate) fn cells(container: &Container, now: u64, zone: &TimeZone, truncate: bool) -> Row {
    let id = if truncate { container.id.get(..12).unwrap_or(&container.id) } else { &container.id };
    let command = container.command.join(" ");
    let command = if truncate { table::ellipsis(&command, 20) } else { command };
    let labels = container.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|(source, _)| if truncate { table::ellipsis(source, 15) } else { source.clone() })
        .collect();
    let cells = [
        ("ID", id.to_owned()),
        ("Image", container.image.clone()),
        ("Command", format!("\"{}\"", command.replace('\\', "\\\\").replace('"', "\\\""))),
        ("RunningFor", time::ago(container.created, now)),
        ("CreatedAt", time::long(container.created, zone)),
        ("Status", status(container, now)),
        ("State", container.state.to_owned()),
        ("Ports", port::column(&container.ports)),
        ("Names", container.name.clone()),
        ("Size", container.sizes.map(size_column).unwrap_or_default()),
        ("Labels", labels),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", container.volumes.to_string()),
        ("Networks", container.networks.join(",")),
        ("Platform", container.platform.clone()),
    ];
    cells.into_iter().collect::<Row>().with_labels(container.labels.clone())
}

/// `2B (virtual 7.8MB)`.
fn size_column(sizes: Sizes) -> String {
    format!("{} (virtual {})", size::decimal(sizes.written), size::decimal(sizes.total))
}

/// Which containers are shown.
pub(crate) struct Selection<'a> {
    pub(crate) filters: &'a Filters,
    /// `-a`.
    pub(crate) all: bool,
    /// `-n`; `-l` is 1.
    pub(crate) last: Option<usize>,
}

/// Keeps what `ps` shows of `containers`, which are the newest first.
pub(crate) fn select(containers: Vec<Container>, selection: &Selection<'_>) -> Parsed<Vec<Container>> {
    let filters = selection.filters;
    let before = moment(&containers, filters, "before")?;
    let since = moment(&containers, filters, "since")?;
    let exits = exit_codes(filters)?;
    known_words(filters)?;
    // A status or exit code asked for is shown without -a.
    let all = selection.all
        || selection.last.is_some()
        || !filters.values("status").is_empty()
        || !filters.values("exited").is_empty();
    let is_up = |c: &Container| matches!(c.state, "running" | "paused" | "restarting");
    let kept = containers.into_iter().filter(|c| {
        (all || is_up(c))
            && before.is_none_or(|b| c.created < b)
            && since.is_none_or(|s| c.created > s)
            && (exits.is_empty() || (c.state == "exited" && exits.contains(&c.exit_code)))
            && matches(c, filters)
    });
    Ok(match selection.last {
        Some(count) => kept.take(count).collect(),
        None => kept.collect(),
    })
}

fn matches(container: &Container, filters: &Filters) -> bool {
    filters.any("id", |id| container.id.starts_with(id))
        && filters.any("name", |name| name_matches(&container.name, name))
        && filters.any("status", |status| container.state == status)
        && filters.all("label", |label| label_matches(&container.labels, label))
        && filters.any("ancestor", |image| is_ancestor(container, image))
        && filters.any("network", |network| container.networks.iter().any(|n| n == network))
        && filters.any("volume", |volume| {
            container.mounts.iter().any(|(source, target)| source == volume || target == volume)
        })
        && filters.any("health", |word| health_word(container.health) == word)
        && filters.any("publish", |text| ports_match(container, text, true))
        && filters.any("expose", |text| ports_match(container, text, false))
        && filters.any("isolation", |_| true)
}

/// A name fits when it holds the text; `^` and `$` pin it to the ends. (Docker takes any regular expression.)
fn name_matches(name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    let (start, wanted) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest.strip_prefix('/').unwrap_or(rest)),
        None => (false, wanted),
    };
    match (start, wanted.strip_suffix('$')) {
        (true, Some(exact)) => name == exact,
        (true, None) => name.starts_with(wanted),
        (false, Some(end)) => name.ends_with(end),
        (false, None) => name.contains(wanted),
    }
}

fn is_ancestor(container: &Container, image: &str) -> bool {
    let tagged = |text: &str| {
        if text.rsplit('/').next().is_some_and(|n| n.contains(':')) {
            text.to_owned()
        } else {
            format!("{text}:latest")
        }
    };
    let id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    container.image == image
        || tagged(&container.image) == tagged(image)
        || (image.len() >= 4 && id.starts_with(image.strip_prefix("sha256:").unwrap_or(image)))
}

fn health_word(health: Option<HealthStatus>) -> &'static str {
    match health {
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
        None => "none",
    }
}

/// `publish` and `expose` ask for the container's ports, as Docker's do; `publish` also finds a port of the host.
fn ports_match(container: &Container, text: &str, published: bool) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    let wanted = first..=last;
    let asked = container
        .asked_ports
        .iter()
        .any(|(port, of, public)| of == protocol && wanted.contains(port) && (*public || !published));
    let on_host =
        |port: &Port| port.protocol == protocol && port.host.is_some_and(|(_, port)| wanted.contains(&port));
    asked || (published && container.ports.iter().any(on_host))
}

/// When the container named in `before` or `since` was created.
fn moment(containers: &[Container], filters: &Filters, filter: &str) -> Parsed<Option<u64>> {
    let Some(text) = filters.values(filter).first() else { return Ok(None) };
    let found =
        containers.iter().find(|c| c.name == *text || (!text.is_empty() && c.id.starts_with(text.as_str())));
    match found {
        Some(container) => Ok(Some(container.created)),
        None => Err(ParseError::new(format!("No such container: {text}"))),
    }
}

fn exit_codes(filters: &Filters) -> Parsed<Vec<i32>> {
    let parse = |text: &String| {
        text.parse().map_err(|_| ParseError::new(format!("invalid filter 'exited={text}': must be a number")))
    };
    filters.values("exited").iter().map(parse).collect()
}

/// A status or health that does not exist would never match: that is a typing error.
fn known_words(filters: &Filters) -> Parsed<()> {
    let check = |filter: &str, words: &[&str]| match filters
        .values(filter)
        .iter()
        .find(|value| !words.contains(&value.as_str()))
    {
        Some(bad) => Err(ParseError::new(format!("invalid filter '{filter}={bad}'"))),
        None => Ok(()),
    };
    check("status", &["created", "restarting", "running", "removing", "paused", "exited", "dead"])?;
    check("health", &["starting", "healthy", "unhealthy", "none"])
}

#[cfg(test)]
mod tests;
