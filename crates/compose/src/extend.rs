//! `extends`: a service that is another one, of this file or of another, with something laid over it.

use crate::error::{Error, Result};
use crate::fields::{Fields, wrong};
use crate::merge::merge_service;
use crate::node::{self, Node, Value};
use crate::project::Around;
use crate::variable;

/// Longest chain.
const DEPTH: usize = 20;

/// PURE, but for the files that are named: the tree with all services as they are in full.
pub(crate) fn all(tree: Node, around: &Around<'_>) -> Result<Node> {
    let Some(Node { value: Value::Map(services), .. }) = tree.get("services") else { return Ok(tree) };
    if !services.iter().any(|(_, service)| service.get("extends").is_some()) {
        return Ok(tree);
    }
    let mut whole = Vec::with_capacity(services.len());
    for (name, service) in services {
        whole.push((name.clone(), one(service, &tree, around, 0)?));
    }
    let mut tree = tree;
    if let Value::Map(entries) = &mut tree.value {
        for (key, node) in entries {
            if key == "services" {
                node.value = Value::Map(std::mem::take(&mut whole));
            }
        }
    }
    Ok(tree)
}

fn one(service: &Node, tree: &Node, around: &Around<'_>, depth: usize) -> Result<Node> {
    let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
    if depth > DEPTH {
        return Err(wrong(extends, "extends", "no circle"));
    }
    let (name, file) = match &extends.value {
        Value::Scalar { text, .. } => (text.clone(), None),
        _ => {
            let mut fields = Fields::of(extends, "extends")?;
            let (name, file) = (fields.text("service")?, fields.text("file")?);
            fields.finish(&[])?;
            (name.ok_or_else(|| wrong(extends, "extends", "a mapping with a service"))?, file)
        }
    };
    let other = match &file {
        None => None,
        Some(file) => {
            let path = around.path(file);
            let read = |why| Error::Read { place: extends.place.clone(), path: path.clone(), why };
            let text = (around.read)(&path).map_err(read)?;
            let mut node = node::parse(file, &text)?;
            variable::expand_all(&mut node, around.variable, &mut |_| {})?;
            Some((node, path.parent().map(std::path::Path::to_owned).unwrap_or_default()))
        }
    };
    let (source, directory) = match &other {
        Some((node, directory)) => (node, directory.as_path()),
        None => (tree, around.directory),
    };
    let base = source.get("services").and_then(|services| services.get(&name));
    let base = base.ok_or_else(|| Error::Undefined {
        place: extends.place.clone(),
        service: "that extends it".to_owned(),
        kind: "service",
        name: name.clone(),
    })?;
    let there = Around { directory, ..*around };
    let mut base = one(base, source, &there, depth + 1)?;
    if file.is_some() {
        absolute(&mut base, &there);
    }
    let mut own = service.clone();
    for node in [&mut base, &mut own] {
        if let Value::Map(entries) = &mut node.value {
            entries.retain(|(key, _)| key != "extends");
        }
    }
    merge_service(base, own)
}

/// Paths of another project's files begin where these are.
pub(crate) fn absolute_all(tree: &mut Node, around: &Around<'_>) {
    let Value::Map(sections) = &mut tree.value else { return };
    for (section, node) in sections {
        let Value::Map(entries) = &mut node.value else { continue };
        for (_, entry) in entries {
            match section.as_str() {
                "services" => absolute(entry, around),
                "secrets" | "configs" => {
                    let Value::Map(fields) = &mut entry.value else { continue };
                    for (key, node) in fields {
                        if let ("file", Value::Scalar { text, .. }) = (key.as_str(), &mut node.value) {
                            *text = full(text, around);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// PURE: whether two values are one, wherever they stand.
pub(crate) fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (a, b) => a == b,
    }
}

/// Paths of a service of another file begin where that file is.
fn absolute(service: &mut Node, around: &Around<'_>) {
    let Value::Map(entries) = &mut service.value else { return };
    for (key, node) in entries {
        match (key.as_str(), &mut node.value) {
            ("env_file" | "label_file", Value::Scalar { text, .. }) => *text = full(text, around),
            ("develop", develop) => watched(develop, around),
            ("build", Value::Scalar { text, .. }) if !text.contains("://") => *text = full(text, around),
            ("build", Value::Map(inner)) => {
                for (key, node) in inner {
                    if let ("context", Value::Scalar { text, .. }) = (key.as_str(), &mut node.value)
                        && !text.contains("://")
                    {
                        *text = full(text, around);
                    }
                }
            }
            ("env_file" | "label_file" | "volumes", Value::List(list)) => {
                for item in list {
                    match &mut item.value {
                        // A mount's source is what stands before the colon.
                        Value::Scalar { text, .. } if key != "volumes" || text.starts_with('.') => {
                            *text = full(text, around);
                        }
                        Value::Map(inner) => {
                            for (key, node) in inner {
                                if let ("source" | "path", Value::Scalar { text, .. }) =
                                    (key.as_str(), &mut node.value)
                                    && (key == "path" || text.starts_with('.'))
                                {
                                    *text = full(text, around);
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn watched(develop: &mut Value, around: &Around<'_>) {
    let Value::Map(entries) = develop else { return };
    let lists = entries.iter_mut().filter_map(|(_, node)| match &mut node.value {
        Value::List(list) => Some(list),
        _ => None,
    });
    for item in lists.flatten() {
        let Value::Map(fields) = &mut item.value else { continue };
        for (key, node) in fields {
            if let ("path", Value::Scalar { text, .. }) = (key.as_str(), &mut node.value) {
                *text = full(text, around);
            }
        }
    }
}

fn full(text: &str, around: &Around<'_>) -> String {
    around.path(text).to_string_lossy().into_owned()
}
