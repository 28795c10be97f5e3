//! What two images differ in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::image::{Image, Node};

/// Files younger than the build: when it was made says nothing.
const NEW: i64 = i64::MAX;

/// One thing that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What of it: `missing`, `content`, `mode`, `owner`, `time`, `xattr`, `link`, `config`, `history` (a step that
    /// only one has), `step` (with a layer or without).
    pub aspect: &'static str,
    /// A path, a field's name, a step's words.
    pub place: String,
    /// What `cata` made of it.
    pub ours: String,
    /// What the peer did.
    pub theirs: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: cata {:?}, there {:?}", self.aspect, self.place, self.ours, self.theirs)
    }
}

/// Makes all times from `begun` on the same.
pub(super) fn forget_new_times(image: &mut Image, begun: i64) {
    for node in image.files.values_mut().filter(|node| node.mtime >= begun) {
        node.mtime = NEW;
    }
}

/// Everything that differs.
pub(super) fn all(ours: &Image, theirs: &Image) -> Vec<Difference> {
    let mut found = Vec::new();
    files(ours, theirs, &mut found);
    let mut add = |aspect, place: &str, one: String, other: String| {
        if one != other {
            found.push(Difference { aspect, place: place.to_owned(), ours: one, theirs: other });
        }
    };
    for key in ["architecture", "os", "variant", "author"] {
        add("config", key, text(&ours.config[key]), text(&theirs.config[key]));
    }
    let (one, other) = (&ours.config["config"], &theirs.config["config"]);
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default();
    let fields: BTreeSet<String> =
        [keys(one), keys(other)].into_iter().flat_map(|k: Vec<String>| k).collect();
    variables(one, other, &mut add);
    for field in fields.iter().filter(|field| *field != "Env") {
        match (one[field].as_object(), other[field].as_object()) {
            (None, None) => add("config", field, text(&one[field]), text(&other[field])),
            (one, other) => {
                let keys: BTreeSet<&String> =
                    one.into_iter().chain(other).flat_map(|map| map.keys()).collect();
                for key in keys {
                    let value = |map: Option<&Map<String, Value>>| {
                        map.and_then(|map| map.get(key)).map(Value::to_string).unwrap_or_default()
                    };
                    add("config", &format!("{field} {key}"), value(one), value(other));
                }
            }
        }
    }
    lines(&history(ours), &history(theirs), &mut add);
    found
}

/// The environment; its order says nothing.
fn variables(one: &Value, other: &Value, add: &mut dyn FnMut(&'static str, &str, String, String)) {
    let read = |config: &Value| -> BTreeMap<String, String> {
        let lines = config["Env"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pairs = lines.iter().filter_map(|line| line.as_str()?.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), format!("set to {value}"))).collect()
    };
    let (one, other) = (read(one), read(other));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for name in names {
        let value = |map: &BTreeMap<String, String>| map.get(name).cloned().unwrap_or_default();
        add("config", &format!("Env {name}"), value(&one), value(&other));
    }
}

/// Absent, null and empty are the same.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Bool(false) => String::new(),
        other => other.to_string(),
    }
}

/// A step in the words of all: its instruction and what it is about, and whether it has a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    words: String,
    layer: bool,
}

fn history(image: &Image) -> Vec<Line> {
    let lines = image.config["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = |line: &Value| {
        let words = plain(line["created_by"].as_str().unwrap_or_default());
        Line { words, layer: line["empty_layer"].as_bool() != Some(true) }
    };
    lines.iter().map(own).collect()
}

/// Each tool has a form of its own for the same words: quotes, brackets, signatures, flags, digests of sources.
fn plain(said: &str) -> String {
    const SHELL: &str = "/bin/sh -c ";
    let said = said.trim_end().strip_suffix("# buildkit").unwrap_or(said);
    let said = match said.strip_prefix(SHELL) {
        Some(rest) => match rest.strip_prefix("#(nop) ") {
            Some(rest) => rest.to_owned(),
            None => format!("RUN {SHELL}{rest}"),
        },
        // With build arguments: `|1 NAME=value /bin/sh -c …`.
        None if said.starts_with('|') => format!("RUN {said}"),
        None => said.to_owned(),
    };
    let (keyword, rest) = said.trim().split_once(' ').unwrap_or((&said, ""));
    // Flags may hold what else stands between words.
    let rest: Vec<&str> = rest.split_whitespace().filter(|word| !word.starts_with("--")).collect();
    let rest = rest.join(" ").replace(['"', '[', ']', ',', '\\'], " ").replace("= ", "=");
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    match keyword {
        // Buildah names what is copied by its digest.
        "COPY" | "ADD" => drop(words.drain(..words.len().saturating_sub(1))),
        // In the configuration too, where it is compared.
        "HEALTHCHECK" | "EXPOSE" => words.clear(),
        // As it is written, or as it comes to be.
        "WORKDIR" => words = words.last().and_then(|path| path.rsplit('/').next()).into_iter().collect(),
        // With its value, or without.
        "ARG" => {
            words =
                words.into_iter().map(|word| word.split_once('=').map_or(word, |(name, _)| name)).collect();
        }
        // Buildah puts the flags into the command.
        "RUN" => words.retain(|word| !matches!(*word, "/bin/sh" | "-c")),
        _ => {}
    }
    format!("{keyword} {}", words.join(" ")).trim_end().to_owned()
}

/// What one has and the other has not; what both have in another form of layer.
fn lines(ours: &[Line], theirs: &[Line], add: &mut dyn FnMut(&'static str, &str, String, String)) {
    let kind = |line: &Line| if line.layer { "a layer" } else { "no layer" }.to_owned();
    let mut rest = theirs;
    for line in ours {
        match rest.iter().position(|other| other.words == line.words) {
            Some(at) => {
                for other in &rest[..at] {
                    add("history", &other.words, String::new(), kind(other));
                }
                add("step", &line.words, kind(line), kind(&rest[at]));
                rest = &rest[at + 1..];
            }
            None => add("history", &line.words, kind(line), String::new()),
        }
    }
    for other in rest {
        add("history", &other.words, String::new(), kind(other));
    }
}

fn files(ours: &Image, theirs: &Image, found: &mut Vec<Difference>) {
    let paths: BTreeSet<&String> = ours.files.keys().chain(theirs.files.keys()).collect();
    for path in paths {
        let mut add = |aspect, ours: String, theirs: String| {
            if ours != theirs {
                found.push(Difference { aspect, place: path.clone(), ours, theirs });
            }
        };
        match (ours.files.get(path), theirs.files.get(path)) {
            (Some(one), Some(other)) => nodes(one, other, &mut add),
            (one, other) => {
                let kind = |node: Option<&Node>| node.map_or("", |node| node.kind).to_owned();
                add("missing", kind(one), kind(other));
            }
        }
    }
}

fn nodes(one: &Node, other: &Node, add: &mut dyn FnMut(&'static str, String, String)) {
    let content = |node: &Node| format!("{} {}", node.kind, node.content);
    add("content", content(one), content(other));
    // A link's own mode means nothing.
    if one.kind != "symbolic link" {
        add("mode", format!("{:o}", one.mode), format!("{:o}", other.mode));
    }
    add("owner", format!("{:?}", one.owner), format!("{:?}", other.owner));
    let time = |node: &Node| if node.mtime == NEW { "new".to_owned() } else { node.mtime.to_string() };
    add("time", time(one), time(other));
    add("xattr", format!("{:?}", one.xattrs), format!("{:?}", other.xattrs));
    add("link", format!("{:?}", one.same_as), format!("{:?}", other.same_as));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_brings_all_forms_together() {
        for (one, other) in [
            ("COPY --from=b /out / # buildkit", "/bin/sh -c #(nop) COPY dir:00ff in /"),
            ("RUN /bin/sh -c make \\\n  all # buildkit", "/bin/sh -c make    all"),
            ("RUN |1 A=b /bin/sh -c make # buildkit", "|1 A=b /bin/sh -c make"),
            ("ARG A=b", "/bin/sh -c #(nop) ARG A"),
            ("CMD [\"a\", \"b c\"]", "CMD [\"a\" \"b c\"]"),
        ] {
            assert_eq!(plain(one), plain(other));
        }
        assert_ne!(plain("RUN /bin/sh -c a"), plain("RUN /bin/sh -c b"));
        assert_ne!(plain("COPY a /x"), plain("COPY a /y"));
    }
}
