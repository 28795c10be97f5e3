//! Volumes.

use cata_spec::Name;
use hyper::StatusCode;
use serde_json::json;

use crate::call::{Answer, Call};
use crate::fields::Fields;
use crate::refusal::{Outcome, Refusal};
use crate::shared::Server;

/// `GET /volumes`.
pub(crate) fn list(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&["driver", "label", "name", "dangling"])?;
    let used: Vec<String> = server
        .engine
        .records_newest_first()?
        .iter()
        .flat_map(|record| record.mounts.iter())
        .filter_map(|mount| match &mount.kind {
            cata_engine::record::MountKind::Volume { name, .. } => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let mut list = Vec::new();
    for volume in server.engine.volume_list()? {
        let name = volume.name.as_str();
        let free = !used.iter().any(|used| used == name);
        if filters.any("driver", |wanted| wanted == "local")
            && filters.any("name", |wanted| name.contains(wanted))
            && filters.any("dangling", |wanted| matches!(wanted, "true" | "1") == free)
            && filters.labels(&volume.labels)
        {
            list.push(server.engine.volume_document(&volume));
        }
    }
    Answer::ok(json!({ "Volumes": list, "Warnings": null }))
}

/// `POST /volumes/create`.
pub(crate) fn create(server: &Server, mut call: Call) -> Outcome<Answer> {
    let mut fields = Fields::new("", call.document()?)?;
    let name = fields.text("Name")?;
    let name =
        name.map(|text| Name::parse(&text).map_err(|e| Refusal::invalid(e.to_string()))).transpose()?;
    if fields.text("Driver")?.is_some_and(|driver| driver != "local") {
        return Err(Refusal::unsupported("a volume driver other than local"));
    }
    let (labels, options) = (fields.texts("Labels")?, fields.texts("DriverOpts")?);
    fields.finish()?;
    let volume = server.engine.volume_create(name, labels, options)?;
    Ok(Answer::Document(StatusCode::CREATED, server.engine.volume_document(&volume)))
}

/// `DELETE /volumes/{name}`.
pub(crate) fn remove(server: &Server, call: &Call, name: &str) -> Outcome<Answer> {
    server.engine.volume_remove(name, call.flag("force")).map_err(|error| missing(error, name))?;
    Answer::done()
}

/// `GET /volumes/{name}`.
pub(crate) fn inspect(server: &Server, name: &str) -> Outcome<Answer> {
    Answer::ok(server.engine.volume_inspect(name).map_err(|error| missing(error, name))?)
}

/// Docker's words, which clients know.
fn missing(error: cata_engine::Error, name: &str) -> Refusal {
    match error.kind() {
        cata_engine::Kind::NotFound => Refusal::missing(format!("get {name}: no such volume")),
        _ => error.into(),
    }
}

/// `POST /volumes/prune`.
pub(crate) fn prune(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&["label", "label!", "all"])?;
    // Before 1.42 there was no difference between volumes with a name and without.
    let all =
        call.version < 42 || filters.values("all").iter().any(|value| matches!(value.as_str(), "true" | "1"));
    let pruned = server.engine.volume_prune(all, &filters.prune()?)?;
    let names: Vec<&str> = pruned.removed.iter().map(Name::as_str).collect();
    Answer::ok(json!({ "VolumesDeleted": names, "SpaceReclaimed": pruned.freed }))
}
