//! Which request is whose. What Docker has and this engine has not is answered by its name.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::call::{Answer, Call};
use crate::container::{attach, exec, files, list, stats, wait};
use crate::refusal::{Outcome, Refusal};
use crate::shared::Shared;
use crate::{build, container, image, network, system, volume};

/// Answers one request.
pub(crate) fn answer(server: &Shared, call: Call) -> Outcome<Answer> {
    let method = if call.method == Method::HEAD && !call.path.ends_with("/archive") {
        Method::GET
    } else {
        call.method.clone()
    };
    let path = call.path.clone();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["_ping"]) => Ok(Answer::Text("OK")),
        ("GET", ["version"]) => system::version(server),
        ("GET", ["info"]) => system::info(server),
        ("GET", ["events"]) => system::events(server, &call),
        ("GET", ["system", "df"]) => system::disk(server, &call),
        ("POST", ["auth"]) => image::authenticate(server, call),
        ("POST", ["build"]) => build::build(server, call),
        ("POST", ["build", "prune"]) => build::prune(server, &call),
        ("POST", ["commit"]) => container::commit(server, call),
        (_, ["containers", rest @ ..]) => containers(server, call, method.as_str(), rest),
        ("POST", ["exec", id, "start"]) => exec::start(server, call, id),
        ("POST", ["exec", id, "resize"]) => exec::resize(server, &call, id),
        ("GET", ["exec", id, "json"]) => exec::inspect(server, id),
        (_, ["images", rest @ ..]) => images(server, call, method.as_str(), rest),
        ("GET", ["networks"]) => network::list(server, &call),
        ("POST", ["networks", "create"]) => network::create(server, call),
        ("POST", ["networks", "prune"]) => network::prune(server, &call),
        ("POST", ["networks", id, "connect"]) => network::connect(server, call, id),
        ("POST", ["networks", id, "disconnect"]) => network::disconnect(server, call, id),
        ("GET", ["networks", id]) => network::inspect(server, id),
        ("DELETE", ["networks", id]) => network::remove(server, id),
        ("GET", ["volumes"]) => volume::list(server, &call),
        ("POST", ["volumes", "create"]) => volume::create(server, call),
        ("POST", ["volumes", "prune"]) => volume::prune(server, &call),
        ("GET", ["volumes", name]) => volume::inspect(server, name),
        ("DELETE", ["volumes", name]) => volume::remove(server, &call, name),
        (method, _) => Err(unknown(method, &path)),
    }
}

fn containers(server: &Shared, mut call: Call, method: &str, rest: &[&str]) -> Outcome<Answer> {
    let engine = &server.engine;
    match (method, rest) {
        ("GET", ["json"]) => list::list(server, &call),
        ("POST", ["create"]) => container::create(server, call),
        ("POST", ["prune"]) => container::prune(server, &call),
        ("GET", [id, "json"]) => container::inspect(server, &call, id),
        ("POST", [id, "start"]) => container::start(server, id),
        ("POST", [id, "stop"]) => container::stop(server, &call, id),
        ("POST", [id, "restart"]) => {
            engine.restart(id, call.number("t")?)?;
            Answer::done()
        }
        ("POST", [id, "kill"]) => {
            engine.kill(id, call.word("signal"))?;
            Answer::done()
        }
        ("POST", [id, "pause"]) => {
            engine.pause(id)?;
            Answer::done()
        }
        ("POST", [id, "unpause"]) => {
            engine.unpause(id)?;
            Answer::done()
        }
        ("POST", [id, "rename"]) => {
            let name = call
                .word("name")
                .ok_or_else(|| Refusal::invalid("Neither old nor new names may be empty"))?;
            engine.rename(id, name)?;
            Answer::done()
        }
        ("POST", [id, "wait"]) => wait::wait(server, &call, id),
        ("POST", [id, "attach"]) => attach::attach(server, &call, id),
        ("GET", [id, "logs"]) => attach::logs(server, &call, id),
        ("POST", [id, "resize"]) => {
            engine.resize(id, exec::size(&call)?)?;
            Ok(Answer::Empty(StatusCode::OK))
        }
        ("POST", [id, "exec"]) => exec::create(server, call, id),
        ("POST", [id, "update"]) => container::update(server, call, id),
        ("GET", [id, "top"]) => container::top(server, &call, id),
        ("GET", [id, "changes"]) => container::changes(server, id),
        ("GET", [id, "stats"]) => stats::stats(server, &call, id),
        ("GET", [id, "export"]) => files::export(server, id),
        ("HEAD" | "GET" | "PUT", [id, "archive"]) => files::archive(server, call, id),
        ("DELETE", [id]) => container::remove(server, &call, id),
        _ => {
            // What is left of it shall not disturb the connection.
            let _ = call.document();
            Err(unknown(method, &call.path))
        }
    }
}

/// Names of images have slashes in them.
fn images(server: &Shared, call: Call, method: &str, rest: &[&str]) -> Outcome<Answer> {
    let name = |parts: &[&str]| parts.join("/");
    match (method, rest) {
        ("GET", ["json"]) => image::list(server, &call),
        ("POST", ["create"]) => image::create(server, call),
        ("POST", ["load"]) => image::load(server, call),
        ("POST", ["prune"]) => image::prune(server, &call),
        ("GET", ["get"]) => {
            let names = call.words("names").iter().map(|name| (*name).to_owned()).collect();
            image::save(server, names)
        }
        ("GET", [parts @ .., "json"]) => image::inspect(server, &name(parts)),
        ("GET", [parts @ .., "history"]) => image::history(server, &name(parts)),
        ("GET", [parts @ .., "get"]) => image::save(server, vec![name(parts)]),
        ("POST", [parts @ .., "tag"]) => image::tag(server, &call, &name(parts)),
        ("POST", [parts @ .., "push"]) => image::push(server, &call, &name(parts)),
        ("DELETE", parts) if !parts.is_empty() => image::remove(server, &call, &name(parts)),
        (method, _) => Err(unknown(method, &call.path)),
    }
}

/// What Docker has.
const DOCKERS: [&str; 17] = [
    "build",
    "checkpoints",
    "configs",
    "containers",
    "distribution",
    "exec",
    "grpc",
    "images",
    "networks",
    "nodes",
    "plugins",
    "secrets",
    "services",
    "session",
    "swarm",
    "tasks",
    "volumes",
];

fn unknown(method: &str, path: &str) -> Refusal {
    let first = path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    if DOCKERS.contains(&first) {
        Refusal::unsupported(format!("{method} {path}"))
    } else {
        Refusal::missing(format!("page not found: {}", json!(path)))
    }
}
