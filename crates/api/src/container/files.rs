//! Files of a container: `archive` in both directions, and `export`.

use base64::Engine as _;
use cata_engine::container::copy::PathStat;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::call::{Answer, Call, Output};
use crate::refusal::{Outcome, Refusal};
use crate::shared::Shared;

/// `HEAD`, `GET` and `PUT /containers/{id}/archive`.
pub(crate) fn archive(server: &Shared, mut call: Call, id: &str) -> Outcome<Answer> {
    let path = call.word("path").ok_or_else(|| Refusal::invalid("path cannot be empty"))?.to_owned();
    let record = server.engine.find(id)?;
    if call.method == Method::PUT {
        // A directory is not replaced by a file, or a file by a directory: the engine never does.
        let keep_owner = call.flag("copyUIDGID");
        server.engine.copy_in(record.id.as_str(), &path, keep_owner, &mut call.body)?;
        return Ok(Answer::Empty(StatusCode::OK));
    }
    let missing = || Refusal::missing(format!("Could not find the file {path} in container {id}"));
    let stat = server.engine.path_stat(record.id.as_str(), &path, false)?.ok_or_else(missing)?;
    let headers = vec![("X-Docker-Container-Path-Stat", described(&stat))];
    let kind = "application/x-tar";
    if call.method == Method::HEAD {
        return Ok(Answer::Stream { kind, headers, write: Box::new(|_: &mut Output| {}) });
    }
    let called = if stat.name.is_empty() || stat.name == "." { "/".to_owned() } else { stat.name };
    let (server, id) = (Shared::clone(server), record.id.to_string());
    let write = move |output: &mut Output| {
        // The head is sent: a stream that ends early is all that can be told.
        let _ = server.engine.copy_out(&id, &path, false, &called, output);
    };
    Ok(Answer::Stream { kind, headers, write: Box::new(write) })
}

/// What Docker's header says, in Go's bits.
fn described(stat: &PathStat) -> String {
    let kind = match stat.mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        0o060_000 => 1 << 26,
        0o020_000 => (1 << 26) | (1 << 21),
        _ => 0,
    };
    let special = [(0o4000, 23), (0o2000, 22), (0o1000, 20)];
    let special: u32 = special.iter().filter(|(bit, _)| stat.mode & bit != 0).map(|(_, to)| 1 << to).sum();
    let document = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": kind | special | (stat.mode & 0o777),
        "mtime": cata_engine::Stamp(stat.mtime.saturating_mul(1_000_000_000)),
        "linkTarget": stat.link_target.clone().unwrap_or_default(),
    });
    base64::engine::general_purpose::STANDARD.encode(document.to_string())
}

/// `GET /containers/{id}/export`.
pub(crate) fn export(server: &Shared, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let (server, id) = (Shared::clone(server), record.id.to_string());
    let write = move |output: &mut Output| {
        let _ = server.engine.export(&id, output);
    };
    Ok(Answer::Stream { kind: "application/x-tar", headers: Vec::new(), write: Box::new(write) })
}
