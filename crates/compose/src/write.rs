//! A tree as text again: what `config` prints.

use serde_json::{Map, Value as Json};

use crate::node::{Node, Value};

/// PURE: the tree as JSON; what was written without quotes is a number or a boolean where it looks like one.
#[must_use]
pub fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, plain } => scalar(text, *plain),
        Value::List(list) => Json::Array(list.iter().map(json).collect()),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(key, node)| (key.clone(), json(node))).collect::<Map<_, _>>())
        }
    }
}

fn scalar(text: &str, plain: bool) -> Json {
    if plain {
        match text {
            "true" | "True" | "TRUE" => return Json::Bool(true),
            "false" | "False" | "FALSE" => return Json::Bool(false),
            _ => {}
        }
        // Only what is written back as it was: 010 and 1.10 stay text.
        if let Ok(number) = text.parse::<i64>()
            && number.to_string() == text
        {
            return Json::from(number);
        }
        if let Ok(number) = text.parse::<f64>()
            && number.to_string() == text
        {
            return Json::from(number);
        }
    }
    Json::String(text.to_owned())
}

/// PURE: the same with `$` as it is written in a file, where it would begin a variable.
#[must_use]
pub fn escaped(value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(text.replace('$', "$$")),
        Json::Array(list) => Json::Array(list.into_iter().map(escaped).collect()),
        Json::Object(entries) => {
            Json::Object(entries.into_iter().map(|(key, value)| (key, escaped(value))).collect())
        }
        other => other,
    }
}

/// PURE: JSON as YAML in block form.
#[must_use]
pub fn yaml(value: &Json) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Json, indent: usize, text: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Json::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                text.push_str(&format!("{pad}{}:", word(key)));
                behind(value, indent, text);
            }
        }
        Json::Array(list) if !list.is_empty() => {
            for value in list {
                match value {
                    Json::Object(entries) if !entries.is_empty() => {
                        let mut inner = String::new();
                        block(value, indent + 1, &mut inner);
                        text.push_str(&format!("{pad}- {}", inner.trim_start_matches(' ')));
                    }
                    value => {
                        text.push_str(&format!("{pad}-"));
                        behind(value, indent, text);
                    }
                }
            }
        }
        value => text.push_str(&format!("{pad}{}\n", flow(value))),
    }
}

fn behind(value: &Json, indent: usize, text: &mut String) {
    let nested = match value {
        Json::Object(entries) => !entries.is_empty(),
        Json::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        text.push('\n');
        block(value, indent + 1, text);
    } else {
        text.push_str(&format!(" {}\n", flow(value)));
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::String(text) => word(text),
        // JSON is YAML.
        other => other.to_string(),
    }
}

/// Text without quotes where nobody can take it for anything else.
fn word(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/_".contains(c));
    let taken = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if begins && !taken && text.chars().all(safe) {
        text.to_owned()
    } else {
        Json::String(text.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{json, yaml};
    use crate::node::parse;

    proptest! {
        /// What is printed is read as the same again.
        #[test]
        fn yaml_of_a_tree_is_that_tree(
            words in prop::collection::vec("[ -~äñ\n]{0,12}", 0..5),
            keys in prop::collection::btree_set("[a-z:# -]{1,6}", 0..4),
        ) {
            let list = serde_json::json!(words);
            let map: serde_json::Map<_, _> =
                keys.iter().map(|key| (key.clone(), serde_json::json!([{"a": list, "n": 1, "t": true, "e": {}}]))).collect();
            let value = serde_json::json!({"services": map, "words": list});
            let text = yaml(&value);
            prop_assert_eq!(json(&parse("f", &text).unwrap()), value, "{}", text);
        }
    }
}
