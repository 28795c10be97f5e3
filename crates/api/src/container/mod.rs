//! Containers: one file for what is made, one for what is listed, one for streams, one for files; the rest is here.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod list;
pub(crate) mod stats;
pub(crate) mod wait;

use cata_engine::container::life::Stopped;
use cata_engine::container::update::UpdateRequest;
use cata_engine::container::{RemoveOptions, StartOptions};
use cata_engine::images::progress::Silent;
use cata_engine::{Error, Kind, Timing};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::fields::Fields;
use crate::refusal::{Outcome, Refusal};
use crate::shared::Server;

/// `POST /containers/create`.
pub(crate) fn create(server: &Server, mut call: Call) -> Outcome<Answer> {
    let document = call.document()?;
    let request = create::request(document, call.word("name"), call.word("platform"))?;
    let image = request.image.clone();
    let created = server.engine.create(request, &Silent, &mut Timing::default()).map_err(|error| {
        match (error.kind(), &error) {
            // What tells clients to pull it.
            (Kind::NotFound, Error::Image(_)) => {
                Refusal::missing(format!("No such image: {}", with_tag(&image)))
            }
            // Whoever hears 404 here goes and pulls the image.
            (Kind::NotFound, _) => Refusal::invalid(Refusal::from(error).message),
            _ => error.into(),
        }
    })?;
    let document = json!({ "Id": created.record.id.as_str(), "Warnings": created.warnings });
    Ok(Answer::Document(StatusCode::CREATED, document))
}

/// `GET /containers/{id}/json`.
pub(crate) fn inspect(server: &Server, call: &Call, id: &str) -> Outcome<Answer> {
    let engine = &server.engine;
    let mut document = if call.flag("size") { engine.inspect_with_size(id)? } else { engine.inspect(id)? };
    add_short_id(&mut document);
    Answer::ok(document)
}

/// PURE: the short id is one of a container's aliases. Docker has left it out since 1.45; docker-compose 1 asks for the
/// newest version, and connects a container anew that has none.
fn add_short_id(document: &mut Value) {
    let short = document["Id"].as_str().and_then(|id| id.get(..12)).unwrap_or_default().to_owned();
    let networks = document["NetworkSettings"]["Networks"].as_object_mut();
    for (name, endpoint) in networks.into_iter().flatten() {
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            continue;
        }
        match &mut endpoint["Aliases"] {
            Value::Array(list) => list.push(json!(short)),
            none => *none = json!([short]),
        }
    }
}

/// PURE: a name as Docker says it.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) || image.starts_with("sha256:") {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// `POST /containers/{id}/start`.
pub(crate) fn start(server: &Server, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let waiting = server.take_attachers(record.id.as_str());
    let attach = waiting.first().map(|first| first.streams);
    let options = StartOptions { attach, window: None };
    // Who waits hears of a failure by its end being closed.
    match server.engine.start(&record, options, &mut Timing::default()) {
        Ok(Some(mut started)) => {
            let streams = std::mem::take(&mut started.streams);
            let mut streams = attach.is_some().then_some(streams);
            for attacher in waiting {
                // It may have gone meanwhile.
                let _ = attacher.sender.send(streams.take());
            }
            Answer::done()
        }
        Ok(None) => {
            for attacher in waiting {
                let _ = attacher.sender.send(None);
            }
            Ok(Answer::Empty(StatusCode::NOT_MODIFIED))
        }
        Err(error) => {
            drop(waiting);
            if record.request.auto_remove {
                let options = RemoveOptions { force: true, volumes: true };
                // The first error is the one to tell.
                let _ = server.engine.remove(record.id.as_str(), options);
            }
            Err(error.into())
        }
    }
}

/// `POST /containers/{id}/stop`.
pub(crate) fn stop(server: &Server, call: &Call, id: &str) -> Outcome<Answer> {
    match server.engine.stop(id, call.word("signal"), call.number("t")?)? {
        Stopped::Already => Ok(Answer::Empty(StatusCode::NOT_MODIFIED)),
        Stopped::Ended(_) | Stopped::Ignored(_) => Answer::done(),
    }
}

/// `DELETE /containers/{id}`.
pub(crate) fn remove(server: &Server, call: &Call, id: &str) -> Outcome<Answer> {
    if call.flag("link") {
        return Err(Refusal::unsupported("the removal of links"));
    }
    let options = RemoveOptions { force: call.flag("force"), volumes: call.flag("v") };
    server.engine.remove(id, options)?;
    Answer::done()
}

/// `POST /containers/{id}/update`.
pub(crate) fn update(server: &Server, mut call: Call, id: &str) -> Outcome<Answer> {
    let mut fields = Fields::new("", call.document()?)?;
    let restart = create::restart_if_any(&mut fields)?;
    let resources = create::limits(&mut fields)?;
    fields.finish()?;
    server.engine.update(id, &UpdateRequest { resources, restart })?;
    Answer::ok(json!({ "Warnings": null }))
}

/// `GET /containers/{id}/top`: the columns of `ps -ef`, which is what clients ask for.
pub(crate) fn top(server: &Server, call: &Call, id: &str) -> Outcome<Answer> {
    if let Some(words) = call.word("ps_args").filter(|words| !matches!(*words, "-ef" | "aux" | "ef")) {
        return Err(Refusal::unsupported(format!("top with ps_args={words}")));
    }
    let rows: Vec<Value> = server
        .engine
        .processes(id)?
        .into_iter()
        .map(|process| {
            let time = process.cpu_seconds;
            json!([
                process.uid.to_string(),
                process.pid.to_string(),
                process.parent.to_string(),
                format!("{:.0}", process.cpu_percent),
                clock(process.started),
                process.terminal,
                format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60),
                process.command,
            ])
        })
        .collect();
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    Answer::ok(json!({ "Titles": titles, "Processes": rows }))
}

/// PURE: `15:04` in UTC.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

/// `GET /containers/{id}/changes`.
pub(crate) fn changes(server: &Server, id: &str) -> Outcome<Answer> {
    use cata_engine::container::changes::ChangeKind;
    let list: Vec<Value> = server
        .engine
        .changes(id)?
        .into_iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Changed => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            };
            json!({ "Path": change.path, "Kind": kind })
        })
        .collect();
    Answer::ok(json!(list))
}

/// `POST /containers/prune`.
pub(crate) fn prune(server: &Server, call: &Call) -> Outcome<Answer> {
    let pruned = server.engine.container_prune(&call.filters(&["until", "label", "label!"])?.prune()?)?;
    Answer::ok(json!({ "ContainersDeleted": pruned.removed, "SpaceReclaimed": pruned.freed }))
}

/// `POST /commit`.
pub(crate) fn commit(server: &Server, mut call: Call) -> Outcome<Answer> {
    let container =
        call.word("container").ok_or_else(|| Refusal::invalid("no container specified"))?.to_owned();
    let name = call.word("repo").map(|repo| match call.word("tag") {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    });
    let changes = call.words("changes").iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    let options = cata_engine::container::commit::CommitOptions {
        name,
        author: call.word("author").map(str::to_owned),
        message: call.word("comment").map(str::to_owned),
        changes,
        no_pause: call.word("pause").is_some() && !call.flag("pause"),
    };
    // A configuration to lay over: no client of today sends one.
    let fields = Fields::new("", call.document()?)?;
    fields.finish()?;
    let image = server.engine.container_commit(&container, &options)?;
    Ok(Answer::Document(StatusCode::CREATED, json!({ "Id": image.id.to_string() })))
}
