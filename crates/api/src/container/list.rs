//! `GET /containers/json`: containers as a list has them.

use cata_engine::container::inspect::{network_mode, status_word};
use cata_engine::container::live::View;
use cata_engine::health::HealthStatus;
use cata_engine::record::MountKind;
use cata_engine::span::span;
use cata_engine::status::StatusKind;
use cata_engine::{Engine, Stamp};
use serde_json::{Value, json};

use crate::call::{Answer, Call, Filters};
use crate::refusal::{Outcome, Refusal};
use crate::shared::Server;

/// Filters that are there.
const FILTERS: [&str; 11] =
    ["ancestor", "before", "exited", "health", "id", "label", "name", "network", "since", "status", "volume"];

pub(crate) fn list(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&FILTERS)?;
    let limit = call.number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let by_state = ["status", "exited", "health"].iter().any(|name| !filters.values(name).is_empty());
    let all = call.flag("all") || limit.is_some() || by_state;
    let engine = &server.engine;
    // One that is named must be there.
    let mut bounds = [None, None];
    for (bound, name) in bounds.iter_mut().zip(["before", "since"]) {
        if let Some(text) = filters.values(name).first() {
            *bound = Some(engine.find(text)?.created);
        }
    }
    let mut list = Vec::new();
    for view in engine.views()? {
        let runs =
            matches!(view.status.status, StatusKind::Running | StatusKind::Paused | StatusKind::Restarting);
        let made = view.record.created;
        let between =
            bounds[0].is_none_or(|before| made < before) && bounds[1].is_none_or(|since| made > since);
        if (all || runs) && between && view.record.request.machine.is_none() && fits(engine, &view, &filters)?
        {
            list.push(row(engine, &view, call.flag("size"))?);
        }
        if limit.is_some_and(|limit| list.len() >= limit) {
            break;
        }
    }
    Answer::ok(json!(list))
}

fn fits(engine: &Engine, view: &View, filters: &Filters) -> Outcome<bool> {
    let (record, status) = (&view.record, &view.status);
    let health = match status.health.as_ref().map(|health| health.status) {
        None => "none",
        Some(HealthStatus::Starting) => "starting",
        Some(HealthStatus::Healthy) => "healthy",
        Some(HealthStatus::Unhealthy) => "unhealthy",
    };
    let mut ancestors = Vec::new();
    for text in filters.values("ancestor") {
        ancestors.extend(engine.image(text).ok().map(|image| image.id.to_string()));
    }
    if let Some(text) = filters.values("exited").iter().find(|text| text.parse::<i32>().is_err()) {
        return Err(Refusal::invalid(format!("invalid filter 'exited={text}'")));
    }
    let mounted = |wanted: &str| {
        record.mounts.iter().any(|mount| {
            mount.target == wanted
                || match &mount.kind {
                    MountKind::Volume { name, .. } => name.as_str() == wanted,
                    _ => mount.source.as_os_str() == wanted,
                }
        })
    };
    let on = |wanted: &str| {
        view.network
            .endpoints
            .iter()
            .any(|e| e.network.as_str() == wanted || e.network_id.starts_with(wanted))
            || network_mode(&record.request.network) == wanted
    };
    Ok(filters.any("id", |wanted| record.id.as_str().starts_with(wanted))
        && filters.any("name", |wanted| named(record.name.as_str(), wanted))
        && filters.any("status", |wanted| status_word(status.status) == wanted)
        && filters.any("health", |wanted| health == wanted)
        && filters.any("exited", |wanted| {
            status.status == StatusKind::Exited && wanted.parse() == Ok(status.exit_code)
        })
        && filters.any("volume", mounted)
        && filters.any("network", on)
        && (filters.values("ancestor").is_empty() || ancestors.contains(&record.image.id))
        && filters.labels(&record.config.labels))
}

/// PURE: Docker takes the text for a regular expression; what clients send of it are anchors.
fn named(name: &str, wanted: &str) -> bool {
    let (from_start, wanted) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let (to_end, wanted) = match wanted.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, wanted),
    };
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    match (from_start, to_end) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

fn row(engine: &Engine, view: &View, sizes: bool) -> Outcome<Value> {
    let (record, status) = (&view.record, &view.status);
    let whole = engine.document_of(view);
    let mut networks = whole["NetworkSettings"]["Networks"].clone();
    if let Some(aliases) = networks.as_object_mut() {
        aliases.values_mut().for_each(|network| network["Aliases"] = Value::Null);
    }
    let ports: Vec<Value> = ports(&whole["NetworkSettings"]["Ports"]);
    let command = record
        .config
        .argv
        .iter()
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    let mut row = json!({
        "Id": record.id.as_str(),
        "Names": [format!("/{}", record.name)],
        "Image": record.image.reference,
        "ImageID": record.image.id,
        "Command": command.collect::<Vec<_>>().join(" "),
        "Created": record.created / 1_000_000_000,
        "Ports": ports,
        "Labels": record.config.labels,
        "State": status_word(status.status),
        "Status": status_text(view, Stamp::now()),
        "HostConfig": { "NetworkMode": whole["HostConfig"]["NetworkMode"] },
        "NetworkSettings": { "Networks": networks },
        "Mounts": whole["Mounts"],
    });
    if sizes {
        let sizes = engine.sizes(record)?;
        row["SizeRw"] = json!(sizes.written);
        row["SizeRootFs"] = json!(sizes.total);
    }
    Ok(row)
}

fn ports(map: &Value) -> Vec<Value> {
    let mut list = Vec::new();
    for (port, bindings) in map.as_object().into_iter().flatten() {
        let (number, kind) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().unwrap_or(0);
        match bindings.as_array() {
            None => list.push(json!({ "PrivatePort": number, "Type": kind })),
            Some(bindings) => {
                for binding in bindings {
                    let public = binding["HostPort"].as_str().and_then(|port| port.parse::<u16>().ok());
                    list.push(json!({
                        "IP": binding["HostIp"], "PrivatePort": number, "PublicPort": public, "Type": kind,
                    }));
                }
            }
        }
    }
    list
}

/// PURE: what `ps` shows.
fn status_text(view: &View, now: Stamp) -> String {
    let status = &view.status;
    let since = |stamp: Option<Stamp>| {
        span(u64::try_from(now.unix_nanos() - stamp.unwrap_or(now).unix_nanos()).unwrap_or(0))
    };
    match status.status {
        StatusKind::Created => "Created".to_owned(),
        StatusKind::Running => {
            let health = match status.health.as_ref().map(|health| health.status) {
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
                None => "",
            };
            format!("Up {}{health}", since(status.started_at))
        }
        StatusKind::Paused => format!("Up {} (Paused)", since(status.started_at)),
        StatusKind::Restarting => {
            format!("Restarting ({}) {} ago", status.exit_code, since(status.finished_at))
        }
        StatusKind::Exited => format!("Exited ({}) {} ago", status.exit_code, since(status.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn names_may_be_anchored() {
        for (wanted, fits) in [("we", true), ("^/web$", true), ("^web", true), ("^eb", false), ("we$", false)]
        {
            assert_eq!(named("web", wanted), fits, "{wanted}");
        }
    }
}
