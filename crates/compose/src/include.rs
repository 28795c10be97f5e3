//! `include`: other projects' files, read where they are, whose parts become this one's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::extend;
use crate::fields::{Fields, items, wrong};
use crate::merge::merge;
use crate::node::{self, Node, Value};
use crate::project::Around;
use crate::variable;

/// Longest chain.
const DEPTH: usize = 20;

/// PURE, but for the files that are named: the tree with all that it includes, its paths absolute.
pub(crate) fn all(tree: Node, around: &Around<'_>, missing: &mut dyn FnMut(&str)) -> Result<Node> {
    within(tree, around, missing, 0)
}

fn within(tree: Node, around: &Around<'_>, missing: &mut dyn FnMut(&str), depth: usize) -> Result<Node> {
    let Some(list) = tree.get("include").cloned() else { return Ok(tree) };
    if depth > DEPTH {
        return Err(wrong(&list, "include", "no circle"));
    }
    let mut tree = tree;
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|(key, _)| key != "include");
    }
    for item in items(&list) {
        let other = one(item, around, missing, depth)?;
        add(&mut tree, other, item)?;
    }
    Ok(tree)
}

/// One entry: files laid over each other, with variables of their own.
fn one(item: &Node, around: &Around<'_>, missing: &mut dyn FnMut(&str), depth: usize) -> Result<Node> {
    let (mut paths, mut directory, mut files) = (Vec::new(), None, Vec::new());
    if let Value::Map(_) = item.value {
        let mut fields = Fields::of(item, "include")?;
        paths.extend(fields.texts("path")?);
        directory = fields.text("project_directory")?.map(|text| around.path(&text));
        files = fields.texts("env_file")?.iter().map(|text| around.path(text)).collect();
        fields.finish(&[])?;
    } else {
        paths.push(crate::fields::text(item, "include")?);
    }
    let paths: Vec<PathBuf> = paths.iter().map(|text| around.path(text)).collect();
    let first = paths.first().ok_or_else(|| wrong(item, "include", "a path, or a mapping with one"))?;
    let directory = directory.unwrap_or_else(|| first.parent().unwrap_or(Path::new("/")).to_owned());
    let failed =
        |path: &Path, why: String| Error::Read { place: item.place.clone(), path: path.to_owned(), why };
    let mut own = BTreeMap::new();
    let usual = files.is_empty();
    if usual {
        files.push(directory.join(".env"));
    }
    for file in &files {
        let content = match (around.read)(file) {
            Ok(content) => content,
            Err(_) if usual => continue,
            Err(why) => return Err(failed(file, why)),
        };
        let read = variable::env_file(&content, around.variable);
        own.extend(read.map_err(|(line, why)| failed(file, format!("line {line}: {why}")))?);
    }
    // Who includes has the last word.
    let variable = |name: &str| (around.variable)(name).or_else(|| own.get(name).cloned());
    let there = Around { directory: &directory, variable: &variable, ..*around };
    let mut tree: Option<Node> = None;
    for path in &paths {
        let content = (around.read)(path).map_err(|why| failed(path, why))?;
        let mut node = node::parse(&path.display().to_string(), &content)?;
        variable::expand_all(&mut node, &variable, missing)?;
        tree = Some(match tree {
            None => node,
            Some(base) => merge(base, node)?,
        });
    }
    let tree = tree.unwrap_or_else(|| item.here(Value::Null));
    let tree = within(tree, &there, missing, depth + 1)?;
    let mut tree = extend::all(tree, &there)?;
    extend::absolute_all(&mut tree, &there);
    own_values(&mut tree, &variable);
    Ok(tree)
}

/// Names without a value in `environment` have the value that they have there.
fn own_values(tree: &mut Node, variable: &dyn Fn(&str) -> Option<String>) {
    let map = |node: &mut Node| match &mut node.value {
        Value::Map(entries) => std::mem::take(entries),
        _ => Vec::new(),
    };
    let Value::Map(sections) = &mut tree.value else { return };
    for (_, services) in sections.iter_mut().filter(|(key, _)| key == "services") {
        let mut all = map(services);
        for (_, service) in &mut all {
            let Value::Map(fields) = &mut service.value else { continue };
            for (_, node) in fields.iter_mut().filter(|(key, _)| key == "environment") {
                match &mut node.value {
                    Value::List(list) => {
                        for item in list {
                            let Value::Scalar { text, .. } = &mut item.value else { continue };
                            if !text.contains('=')
                                && let Some(value) = variable(text)
                            {
                                text.push('=');
                                text.push_str(&value);
                            }
                        }
                    }
                    Value::Map(entries) => {
                        for (name, value) in entries.iter_mut().filter(|(_, node)| node.value == Value::Null)
                        {
                            if let Some(text) = variable(name) {
                                value.value = Value::Scalar { text, plain: false };
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        services.value = Value::Map(all);
    }
}

/// What the other one has; the same thing said twice is said once.
fn add(tree: &mut Node, other: Node, item: &Node) -> Result<()> {
    let Value::Map(others) = other.value else { return Ok(()) };
    let Value::Map(entries) = &mut tree.value else { return Ok(()) };
    for (section, node) in others {
        if !matches!(section.as_str(), "services" | "networks" | "volumes" | "secrets" | "configs") {
            continue;
        }
        let Some((_, own)) = entries.iter_mut().find(|(key, _)| *key == section) else {
            entries.push((section, node));
            continue;
        };
        if own.value == Value::Null {
            own.value = Value::Map(Vec::new());
        }
        let (Value::Map(own), Value::Map(parts)) = (&mut own.value, node.value) else { continue };
        for (key, node) in parts {
            match own.iter().find(|(have, _)| *have == key) {
                None => own.push((key, node)),
                Some((_, have)) if extend::same(have, &node) => {}
                Some((_, have)) => {
                    let wanted = format!("free of {section}.{key}, which {} has already", have.place);
                    return Err(wrong(item, "include", &wanted));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::mount::Source;
    use crate::{Around, Asked, Project};

    fn project(main: &str) -> crate::Result<Project> {
        let read = |path: &Path| match path.to_str() {
            Some("/p/part/db.yaml") => {
                Ok("services:\n  db:\n    image: \"db:${TAG}\"\n    volumes: ['./f:/f', 'data:/d']\n    \
                 environment: [WORD]\nvolumes: {data: {}}\n"
                    .to_owned())
            }
            Some("/p/part/.env") => Ok("TAG=own\nWORD=said\n".to_owned()),
            Some("/p/round.yaml") => Ok("include: [round.yaml]\n".to_owned()),
            _ => Err("no such file".to_owned()),
        };
        let variable = |name: &str| (name == "OVER").then(|| "x".to_owned());
        let around = Around { variable: &variable, read: &read, directory: Path::new("/p"), home: None };
        let files = [("compose.yaml".to_owned(), main.to_owned())];
        crate::load(&Asked { files: &files, name: None, profiles: &[], named: &[] }, &around)
    }

    #[test]
    fn included_services_are_as_they_are_where_their_file_is() {
        let project =
            project("include: [part/db.yaml]\nservices: {a: {image: x, depends_on: [db]}}\n").unwrap();
        let db = &project.services["db"];
        assert_eq!(db.image.as_deref(), Some("db:own"));
        assert_eq!(db.environment["WORD"], "said");
        assert_eq!(db.mounts[0].source, Source::Path("/p/part/f".to_owned()));
        assert!(project.volumes.contains_key("data"));
    }

    #[test]
    fn what_is_included_may_be_said_once_more_and_not_otherwise() {
        let same = "include: [part/db.yaml, {path: part/db.yaml}]\nservices: {a: {image: x}}\n";
        assert!(project(same).is_ok());
        for (text, wanted) in [
            ("include: [part/db.yaml]\nservices: {db: {image: x}}\n", "free of services.db"),
            ("include: [gone.yaml]\nservices: {a: {image: x}}\n", "no such file"),
            ("include: [round.yaml]\nservices: {a: {image: x}}\n", "no circle"),
            ("include: [{env_file: x}]\nservices: {a: {image: x}}\n", "a path"),
        ] {
            let error = project(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
