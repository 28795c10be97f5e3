//! One file over another: mappings key by key, lists one behind the other, with the exceptions that the
//! Compose specification has for keys of a service.

use crate::error::{Error, Result};
use crate::node::{Merge, Node, Value};

/// How a key's value goes over another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// By kind.
    Kind,
    /// In its place.
    Replace,
    /// Lists of `NAME=value` or of names are mappings.
    Pairs,
    /// Items of one target are one.
    Target,
}

/// PURE: the rule of the key at the end of `path`.
fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "environment" | "labels" | "annotations" | "sysctls" | "networks" | "depends_on"]
        | ["services", _, "build", "args" | "labels" | "additional_contexts"]
        | ["networks" | "volumes", _, "labels"] => Rule::Pairs,
        ["services", _, "volumes" | "devices" | "secrets" | "configs"] => Rule::Target,
        _ => Rule::Kind,
    }
}

/// PURE: `over` laid over `base`.
///
/// # Errors
/// A list that should be one of names.
pub fn merge(base: Node, over: Node) -> Result<Node> {
    at(base, over, &mut Vec::new())
}

/// PURE: one service over another, for `extends`.
///
/// # Errors
/// As [`merge`].
pub fn merge_service(base: Node, over: Node) -> Result<Node> {
    at(base, over, &mut vec!["services".to_owned(), String::new()])
}

fn at(base: Node, over: Node, path: &mut Vec<String>) -> Result<Node> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let rule = rule(&names);
    if over.merge != Merge::Usual || rule == Rule::Replace {
        return Ok(over);
    }
    if over.value == Value::Null {
        return Ok(base);
    }
    // A build that is only a directory, a service that it extends: the short form of a mapping.
    let (base, over) = match names.as_slice() {
        ["services", _, "build"] => (long(base, "context"), long(over, "context")),
        ["services", _, "extends"] => (long(base, "service"), long(over, "service")),
        _ if rule == Rule::Pairs => (pairs(base)?, pairs(over)?),
        _ => (base, over),
    };
    let place = over.place.clone();
    let value = match (base.value, over.value) {
        (Value::Map(entries), Value::Map(others)) => Value::Map(maps(entries, others, path)?),
        (Value::List(list), Value::List(others)) if rule == Rule::Target => {
            Value::List(by_target(list, others))
        }
        (Value::List(mut list), Value::List(others)) => {
            for item in others {
                if !list.iter().any(|have| same(have, &item)) {
                    list.push(item);
                }
            }
            Value::List(list)
        }
        (_, value) => value,
    };
    Ok(Node { place, merge: Merge::Usual, value })
}

fn maps(
    mut entries: Vec<(String, Node)>,
    others: Vec<(String, Node)>,
    path: &mut Vec<String>,
) -> Result<Vec<(String, Node)>> {
    for (key, node) in others {
        match entries.iter().position(|(name, _)| *name == key) {
            Some(index) if node.merge == Merge::Reset => {
                entries.remove(index);
            }
            Some(index) => {
                let (_, base) = entries.remove(index);
                path.push(key.clone());
                let merged = at(base, node, path)?;
                path.pop();
                entries.insert(index, (key, merged));
            }
            None if node.merge == Merge::Reset => {}
            None => entries.push((key, node)),
        }
    }
    Ok(entries)
}

/// `build: DIR` is `build: {context: DIR}`.
fn long(node: Node, key: &str) -> Node {
    match node.value {
        Value::Scalar { .. } => {
            let inner = node.clone();
            node.here(Value::Map(vec![(key.to_owned(), inner)]))
        }
        _ => node,
    }
}

/// PURE: a list of `NAME=value` as a mapping.
///
/// # Errors
/// It holds something else.
pub(crate) fn pairs(node: Node) -> Result<Node> {
    let Value::List(list) = &node.value else { return Ok(node) };
    let mut entries: Vec<(String, Node)> = Vec::new();
    for item in list {
        let Value::Scalar { text, .. } = &item.value else {
            return Err(Error::Wrong {
                place: item.place.clone(),
                key: "an item of this list".to_owned(),
                wanted: "text".to_owned(),
            });
        };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, item.text_here(value)),
            None => (text.as_str(), item.here(Value::Null)),
        };
        entries.retain(|(have, _)| have != name);
        entries.push((name.to_owned(), value));
    }
    Ok(node.here(Value::Map(entries)))
}

/// PURE: where a mount, a device or a secret ends up.
fn target(item: &Node) -> Option<String> {
    let text = |node: &Node| match &node.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    };
    match &item.value {
        Value::Scalar { text, .. } => {
            let parts: Vec<&str> = text.split(':').collect();
            Some((*parts.get(1).or_else(|| parts.first())?).to_owned())
        }
        Value::Map(_) => item.get("target").or_else(|| item.get("source")).and_then(text),
        _ => None,
    }
}

fn by_target(mut list: Vec<Node>, others: Vec<Node>) -> Vec<Node> {
    for item in others {
        let place = target(&item);
        match list.iter_mut().find(|have| place.is_some() && target(have) == place) {
            Some(have) => *have = item,
            None => list.push(item),
        }
    }
    list
}

/// Whether two values say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar { text: a, .. }, Value::Scalar { text: b, .. }) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, node)| b.iter().any(|(k, other)| k == key && same(node, other)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{merge, same};
    use crate::node::parse;
    use crate::write::json;

    fn merged(base: &str, over: &str) -> String {
        let merged = merge(parse("a", base).unwrap(), parse("b", over).unwrap()).unwrap();
        json(&merged).to_string()
    }

    fn service(base: &str, over: &str) -> String {
        let whole = merged(&format!("services: {{s: {{{base}}}}}"), &format!("services: {{s: {{{over}}}}}"));
        let inner = whole.strip_prefix("{\"services\":{\"s\":").and_then(|rest| rest.strip_suffix("}}"));
        inner.unwrap_or(&whole).to_owned()
    }

    #[test]
    fn keys_have_their_own_rules() {
        for (base, over, wanted) in [
            ("image: a", "image: b", r#"{"image":"b"}"#),
            ("command: [a, b]", "command: [c]", r#"{"command":["c"]}"#),
            ("cap_add: [A]", "cap_add: [B, A]", r#"{"cap_add":["A","B"]}"#),
            ("environment: [A=1, B=2]", "environment: {B: 3}", r#"{"environment":{"A":"1","B":3}}"#),
            ("volumes: ['a:/x', 'b:/y']", "volumes: ['c:/y:ro']", r#"{"volumes":["a:/x","c:/y:ro"]}"#),
            ("ports: ['80:80']", "ports: ['80:80', '81:81']", r#"{"ports":["80:80","81:81"]}"#),
            ("ports: ['80:80']", "ports: !override ['81:81']", r#"{"ports":["81:81"]}"#),
            ("ports: ['80:80'], image: a", "ports: !reset []", r#"{"image":"a"}"#),
            ("build: .", "build: {target: t}", r#"{"build":{"context":".","target":"t"}}"#),
            (
                "networks: [a]",
                "networks: {b: {aliases: [x]}}",
                r#"{"networks":{"a":null,"b":{"aliases":["x"]}}}"#,
            ),
            (
                "healthcheck: {test: [CMD, a], retries: 2}",
                "healthcheck: {test: [CMD, b]}",
                r#"{"healthcheck":{"test":["CMD","b"],"retries":2}}"#,
            ),
        ] {
            assert_eq!(service(base, over), wanted, "{base} / {over}");
        }
    }

    proptest! {
        /// Laying a file over itself changes nothing, and nothing over it neither.
        #[test]
        fn a_file_over_itself_is_itself(keys in prop::collection::btree_map("[a-c]", "[0-9]{1,2}", 0..4)) {
            let map: Vec<String> = keys.iter().map(|(k, v)| format!("{k}: {v}")).collect();
            let yaml = format!("services: {{s: {{environment: {{{}}}, ports: [1, 2]}}}}", map.join(", "));
            let node = parse("a", &yaml).unwrap();
            let twice = merge(node.clone(), node.clone()).unwrap();
            prop_assert!(same(&twice, &node));
            let nothing = merge(node.clone(), parse("b", "services:\n  s:\n").unwrap()).unwrap();
            prop_assert!(same(&nothing, &node));
        }
    }
}
