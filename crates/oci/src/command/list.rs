//! `state` and `list`: what containers there are and what they are doing.

use serde_json::{Value, json};

use super::{Command, HELP};
use crate::World;
use crate::args::{Given, switch, value};
use crate::error::{Error, Result};
use crate::store::{Container, Status};

pub(super) const STATE: Command = Command {
    name: "state",
    words: "ID",
    help: "show a container's state as JSON",
    flags: &[HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run: state,
};

pub(super) const LIST: Command = Command {
    name: "list",
    words: "",
    help: "list containers",
    flags: &[value("format", "f", "FORMAT", "`table` or `json`"), switch("quiet", "q", "ids only"), HELP],
    stop: usize::MAX,
    count: (0, 0),
    makes: false,
    run: list,
};

/// runc's document: the specification's, and a little more.
fn describe(container: &Container) -> Value {
    let (record, status) = (&container.record, container.status());
    let mut state = json!({
        "ociVersion": record.oci_version, "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.word(), "bundle": record.bundle, "rootfs": record.rootfs,
        "created": record.created, "owner": owner(record.owner),
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

fn owner(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

fn state(world: &World, given: &Given) -> Result<u8> {
    let container = world.store.get(super::id(given))?;
    let text = serde_json::to_string_pretty(&describe(&container)).map_err(|e| Error::new(e.to_string()))?;
    println!("{text}");
    Ok(0)
}

fn list(world: &World, given: &Given) -> Result<u8> {
    let containers = world.store.all()?;
    if given.on("quiet") {
        containers.iter().for_each(|container| println!("{}", container.record.id));
        return Ok(0);
    }
    let described: Vec<Value> = containers.iter().map(describe).collect();
    match given.get("format").unwrap_or("table") {
        "json" if described.is_empty() => println!("null"),
        "json" => println!("{}", Value::from(described)),
        "table" => {
            let text = |state: &Value, key: &str| match &state[key] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let keys = ["id", "pid", "status", "bundle", "created", "owner"];
            let mut rows = vec![keys.map(str::to_uppercase)];
            rows.extend(described.iter().map(|state| keys.map(|key| text(state, key))));
            super::ps::print(&rows);
        }
        other => return Err(Error::usage(format!("invalid format `{other}`: it is `table` or `json`"))),
    }
    Ok(0)
}
