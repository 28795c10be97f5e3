//! Images.

use base64::Engine as _;
use cata_engine::Engine;
use cata_engine::images::registry::login::Logins;
use cata_engine::images::{Event, ImportRequest, Progress, RemoveOptions, Removed};
use cata_spec::Reference;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::call::{Answer, Call, Output};
use crate::refusal::{Outcome, Refusal};
use crate::shared::{Server, Shared, locked};

/// `GET /images/json`.
pub(crate) fn list(server: &Server, call: &Call) -> Outcome<Answer> {
    let known = ["before", "dangling", "label", "reference", "since", "until"];
    let filters = call.filters(&known)?;
    let engine = &server.engine;
    let created = |image: &cata_engine::images::Image| {
        image.created().and_then(cata_engine::Stamp::parse).map_or(0, cata_engine::Stamp::unix_nanos)
    };
    let mut bounds = [None, None];
    for (bound, name) in bounds.iter_mut().zip(["before", "since"]) {
        if let Some(text) = filters.values(name).first() {
            *bound = Some(created(&engine.image(text)?));
        }
    }
    let until = filters.values("until").first().and_then(|text| crate::time::moment(text));
    let records = engine.records_newest_first()?;
    let mut list = Vec::new();
    for image in engine.image_list()? {
        let at = created(&image);
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let fits = filters.any("dangling", |value| matches!(value, "true" | "1") == names.is_empty())
            && filters.any("reference", |wanted| image.names.iter().any(|name| is_called(name, wanted)))
            && filters.labels(&image.config.config.labels)
            && bounds[0].is_none_or(|before| at < before)
            && bounds[1].is_none_or(|since| at > since)
            && until.is_none_or(|until| at < until);
        if !fits {
            continue;
        }
        let id = image.id.to_string();
        // Of an image with several names only those that were asked for.
        let names: Vec<String> = image
            .names
            .iter()
            .filter(|name| filters.any("reference", |wanted| is_called(name, wanted)))
            .map(Reference::familiar)
            .collect();
        let mut row = json!({
            "Id": id,
            "ParentId": "",
            "RepoTags": names,
            "RepoDigests": image.repo_digests.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "Created": at / 1_000_000_000,
            "Size": image.size,
            "SharedSize": -1,
            "Labels": image.config.config.labels,
            "Containers": records.iter().filter(|record| record.image.id == id).count(),
        });
        // What old clients add up by.
        if call.version < 44 {
            row["VirtualSize"] = json!(image.size);
        }
        list.push(row);
    }
    Answer::ok(json!(list))
}

/// PURE: by its name, with or without its tag; `*` is anything but a slash.
fn is_called(name: &Reference, wanted: &str) -> bool {
    [name.familiar(), name.familiar_name()].iter().any(|name| glob(name.as_bytes(), wanted.as_bytes()))
}

fn glob(text: &[u8], pattern: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if glob(text, rest) => true,
        (Some((b'*', _)), Some((byte, after))) => *byte != b'/' && glob(after, pattern),
        (Some((b'?', rest)), Some((byte, after))) => *byte != b'/' && glob(after, rest),
        (Some((wanted, rest)), Some((byte, after))) => wanted == byte && glob(after, rest),
        _ => false,
    }
}

/// `GET /images/{name}/json`.
pub(crate) fn inspect(server: &Server, name: &str) -> Outcome<Answer> {
    let mut document = server.engine.image_inspect(name).map_err(|error| no_image(error, name))?;
    // Docker has left it out since 1.45; docker-compose 1 asks for the newest version and for this.
    document["ContainerConfig"] = document["Config"].clone();
    Answer::ok(document)
}

/// Docker's words, which clients know.
fn no_image(error: cata_engine::Error, name: &str) -> Refusal {
    match error.kind() {
        cata_engine::Kind::NotFound => Refusal::missing(format!("No such image: {name}")),
        _ => error.into(),
    }
}

/// `GET /images/{name}/history`.
pub(crate) fn history(server: &Server, name: &str) -> Outcome<Answer> {
    let lines = server.engine.image_history(name).map_err(|error| no_image(error, name))?;
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|line| {
            let created = line.step.created.as_deref().and_then(cata_engine::Stamp::parse);
            json!({
                "Id": line.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
                "Created": created.map_or(0, |stamp| stamp.unix_nanos() / 1_000_000_000),
                "CreatedBy": line.step.created_by.unwrap_or_default(),
                "Tags": line.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Size": line.size,
                "Comment": line.step.comment.unwrap_or_default(),
            })
        })
        .collect();
    Answer::ok(json!(lines))
}

/// `POST /images/{name}/tag`.
pub(crate) fn tag(server: &Server, call: &Call, name: &str) -> Outcome<Answer> {
    let repo = call.word("repo").ok_or_else(|| Refusal::invalid("no repository specified"))?;
    let target = call.word("tag").map_or_else(|| repo.to_owned(), |tag| format!("{repo}:{tag}"));
    server.engine.image_tag(name, &target).map_err(|error| no_image(error, name))?;
    Ok(Answer::Empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`.
pub(crate) fn remove(server: &Server, call: &Call, name: &str) -> Outcome<Answer> {
    let options = RemoveOptions { force: call.flag("force") };
    let removed = server.engine.image_remove(name, options).map_err(|error| no_image(error, name))?;
    Answer::ok(json!(gone(removed)))
}

fn gone(removed: Vec<Removed>) -> Vec<Value> {
    let row = |one| match one {
        Removed::Untagged(name) => json!({ "Untagged": Reference::familiar(&name) }),
        Removed::Deleted(digest) => json!({ "Deleted": digest.to_string() }),
    };
    removed.into_iter().map(row).collect()
}

/// `POST /images/prune`.
pub(crate) fn prune(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&["dangling", "label", "label!", "until"])?;
    let all = filters.values("dangling").iter().any(|value| matches!(value.as_str(), "false" | "0"));
    let pruned = server.engine.image_prune(all, &filters.prune()?)?;
    Answer::ok(json!({ "ImagesDeleted": gone(pruned.removed), "SpaceReclaimed": pruned.freed }))
}

/// `POST /images/create`: a pull, or an import of what comes in the body.
pub(crate) fn create(server: &Shared, mut call: Call) -> Outcome<Answer> {
    if let Some(source) = call.word("fromSrc") {
        if source != "-" {
            return Err(Refusal::unsupported("the import of an address"));
        }
        let target = call.word("repo").map(|repo| match call.word("tag") {
            Some(tag) => format!("{repo}:{tag}"),
            None => repo.to_owned(),
        });
        let reference = target.as_deref().map(Reference::parse).transpose();
        let request = ImportRequest {
            reference: reference.map_err(|e| Refusal::invalid(e.to_string()))?,
            changes: call.words("changes").iter().map(|text| (*text).to_owned()).collect(),
            message: call.word("message").map(str::to_owned),
            platform: None,
        };
        let image = server.engine.image_import(&mut call.body, &request)?;
        let id = image.id.to_string();
        return Answer::lines(move |output| {
            let _ = output.line(&json!({ "status": id }));
        });
    }
    let from = call.word("fromImage").ok_or_else(|| Refusal::invalid("no image specified"))?;
    let name = match call.word("tag") {
        Some(digest) if digest.starts_with("sha256:") => format!("{from}@{digest}"),
        Some(tag) => format!("{from}:{tag}"),
        None => from.to_owned(),
    };
    Reference::parse(&name).map_err(|e| Refusal::invalid(e.to_string()))?;
    let engine = logged_in(server, &call, &name);
    let platform = call.word("platform").map(str::to_owned);
    Answer::lines(move |output| {
        let teller = Teller::new(output, "Downloading");
        let outcome = engine.image_pull(&name, platform.as_deref(), &teller);
        match outcome {
            Ok(pulled) => {
                let word = if pulled.changed { "Downloaded newer image" } else { "Image is up to date" };
                let _ = output.line(&json!({ "status": format!("Digest: {}", pulled.digest) }));
                let _ = output.line(&json!({ "status": format!("Status: {word} for {name}") }));
            }
            Err(error) => fail(output, &error.into()),
        }
    })
}

/// `POST /images/{name}/push`.
pub(crate) fn push(server: &Shared, call: &Call, name: &str) -> Outcome<Answer> {
    let name = call.word("tag").map_or_else(|| name.to_owned(), |tag| format!("{name}:{tag}"));
    server.engine.image(&name).map_err(|error| no_image(error, &name))?;
    let engine = logged_in(server, call, &name);
    Answer::lines(move |output| {
        let teller = Teller::new(output, "Pushing");
        match engine.image_push(&name, None, &teller) {
            Ok(pushed) => {
                let tag = name.rsplit(':').next().filter(|tag| !tag.contains('/')).unwrap_or("latest");
                let text = format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size);
                let _ = output.line(&json!({ "status": text }));
                let aux = json!({ "Tag": tag, "Digest": pushed.digest.to_string(), "Size": pushed.size });
                let _ = output.line(&json!({ "progressDetail": {}, "aux": aux }));
            }
            Err(error) => fail(output, &error.into()),
        }
    })
}

/// The engine, with the login that came with a request for the registry of its image, if one did.
fn logged_in(server: &Server, call: &Call, image: &str) -> Engine {
    let mut logins = Logins::default();
    if let Ok(reference) = Reference::parse(image) {
        logins.add(reference.registry(), &header(call, "X-Registry-Auth"));
    }
    server.engine.with_logins(logins)
}

/// The engine, with the logins that came with a build, by registry.
pub(crate) fn logged_in_everywhere(server: &Server, call: &Call) -> Engine {
    let mut logins = Logins::default();
    for (host, login) in header(call, "X-Registry-Config").as_object().into_iter().flatten() {
        logins.add(host, login);
    }
    server.engine.with_logins(logins)
}

/// A header that is a document in base64; what cannot be read says nothing, as clients send it that have no login.
fn header(call: &Call, name: &str) -> Value {
    let text = call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = text.replace('-', "+").replace('_', "/");
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('='));
    bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null)
}

/// `POST /auth`: whether a registry takes a login. The client keeps it.
pub(crate) fn authenticate(server: &Server, mut call: Call) -> Outcome<Answer> {
    let login = call.document()?;
    let host =
        cata_engine::images::registry::login::host(login["serveraddress"].as_str().unwrap_or_default());
    let mut logins = Logins::default();
    logins.add(&host, &login);
    if !server.engine.with_logins(logins).login_given(&host)? {
        return Err(Refusal::invalid("no username and password are given"));
    }
    Answer::ok(json!({ "Status": "Login Succeeded", "IdentityToken": "" }))
}

/// An error after the head was sent.
pub(crate) fn fail(output: &Output, refusal: &Refusal) {
    let message = &refusal.message;
    let _ = output.line(&json!({ "errorDetail": { "message": message }, "error": message }));
}

/// Tells of layers in Docker's words.
pub(crate) struct Teller<'o> {
    output: Mutex<&'o Output>,
    doing: &'static str,
    totals: Mutex<BTreeMap<String, u64>>,
}

impl<'o> Teller<'o> {
    pub(crate) fn new(output: &'o Output, doing: &'static str) -> Self {
        Self { output: Mutex::new(output), doing, totals: Mutex::default() }
    }

    fn say(&self, document: &Value) {
        // Who has hung up is no reason to stop half-way: another may want it.
        let _ = locked(&self.output).line(document);
    }
}

impl Progress for Teller<'_> {
    fn event(&self, event: Event) {
        let short = |digest: &cata_spec::Digest| {
            let text = digest.to_string();
            let hex = text.split(':').next_back().unwrap_or_default();
            hex.get(..12).unwrap_or(hex).to_owned()
        };
        let bare = |status: &str, id: String| json!({ "status": status, "progressDetail": {}, "id": id });
        let so_far = |digest, bytes: u64| {
            let id = short(digest);
            let total = locked(&self.totals).get(&id).copied().unwrap_or(0);
            let detail = json!({ "current": bytes, "total": total });
            json!({ "status": self.doing, "progressDetail": detail, "id": id })
        };
        self.say(&match &event {
            Event::Absent { .. } => return,
            Event::Resolved { reference, .. } => {
                let tag = reference.tag().unwrap_or("latest");
                json!({ "status": format!("Pulling from {}", reference.repository()), "id": tag })
            }
            Event::Layer { digest, total } => {
                locked(&self.totals).insert(short(digest), *total);
                bare(if self.doing == "Pushing" { "Preparing" } else { "Pulling fs layer" }, short(digest))
            }
            Event::Exists { digest } => bare("Already exists", short(digest)),
            Event::Downloaded { digest, bytes } | Event::Uploaded { digest, bytes } => so_far(digest, *bytes),
            Event::Mounted { digest, from } => bare(&format!("Mounted from {from}"), short(digest)),
            Event::Retrying { digest, attempt, .. } => bare(&format!("Retrying ({attempt})"), short(digest)),
            Event::Extracting { digest } => bare("Extracting", short(digest)),
            Event::Done { digest } => {
                bare(if self.doing == "Pushing" { "Pushed" } else { "Pull complete" }, short(digest))
            }
        });
    }
}

/// `POST /images/load`.
pub(crate) fn load(server: &Shared, mut call: Call) -> Outcome<Answer> {
    let server = Shared::clone(server);
    Answer::lines(move |output| {
        match server.engine.image_load(&mut call.body, &cata_engine::images::progress::Silent) {
            Ok(loaded) => {
                for one in loaded {
                    let text = match one.names.as_slice() {
                        [] => format!("Loaded image ID: {}\n", one.id),
                        names => {
                            names.iter().map(|name| format!("Loaded image: {}\n", name.familiar())).collect()
                        }
                    };
                    let _ = output.line(&json!({ "stream": text }));
                }
            }
            Err(error) => fail(output, &error.into()),
        }
    })
}

/// `GET /images/get` and `GET /images/{name}/get`.
pub(crate) fn save(server: &Shared, names: Vec<String>) -> Outcome<Answer> {
    for name in &names {
        server.engine.image(name).map_err(|error| no_image(error, name))?;
    }
    let server = Shared::clone(server);
    let write = move |output: &mut Output| {
        let _ = server.engine.image_save(&names, None, output);
    };
    Ok(Answer::Stream { kind: "application/x-tar", headers: Vec::new(), write: Box::new(write) })
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn references_are_matched_as_paths() {
        for (text, pattern, fits) in [
            ("busybox", "busybox", true),
            ("busybox:latest", "busy*", true),
            ("a/busybox", "busy*", false),
            ("a/busybox", "*/busybox", true),
            ("busybox", "box", false),
        ] {
            assert_eq!(glob(text.as_bytes(), pattern.as_bytes()), fits, "{text} {pattern}");
        }
    }
}
