//! Reading a mapping key by key: what nobody has asked for in the end is an error.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::merge::pairs;
use crate::node::{Node, Value};

/// What is left to be read of a mapping.
pub(crate) struct Fields<'n> {
    /// Where the mapping stands.
    pub(crate) node: &'n Node,
    key: String,
    left: Vec<(&'n str, &'n Node)>,
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// A mapping, or nothing; `key` is its own name, with those around it.
    pub(crate) fn of(node: &'n Node, key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        let left = match &node.value {
            Value::Map(entries) => entries.iter().map(|(name, node)| (name.as_str(), node)).collect(),
            Value::Null => Vec::new(),
            _ => return Err(wrong(node, &key, "a mapping")),
        };
        Ok(Self { node, key, left, asked: Vec::new() })
    }

    /// The full name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    /// A value that is not nothing.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.asked.push(key);
        let index = self.left.iter().position(|(name, _)| *name == key)?;
        let (_, node) = self.left.swap_remove(index);
        (node.value != Value::Null).then_some(node)
    }

    /// Text.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        let name = self.name(key);
        self.take(key).map(|node| text(node, &name)).transpose()
    }

    /// A boolean; absent: no.
    pub(crate) fn flag(&mut self, key: &'static str) -> Result<bool> {
        Ok(self.flag_if_any(key)?.unwrap_or(false))
    }

    /// A boolean.
    pub(crate) fn flag_if_any(&mut self, key: &'static str) -> Result<Option<bool>> {
        let name = self.name(key);
        let Some(node) = self.take(key) else { return Ok(None) };
        match text(node, &name)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(Some(true)),
            "false" | "no" | "off" | "n" => Ok(Some(false)),
            _ => Err(wrong(node, &name, "true or false")),
        }
    }

    /// A number.
    pub(crate) fn number<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>> {
        let name = self.name(key);
        let Some(node) = self.take(key) else { return Ok(None) };
        text(node, &name)?.parse().map(Some).map_err(|_| wrong(node, &name, "a number"))
    }

    /// A list of texts, or one alone.
    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Vec<String>> {
        let name = self.name(key);
        let Some(node) = self.take(key) else { return Ok(Vec::new()) };
        items(node).iter().map(|item| text(item, &name)).collect()
    }

    /// A mapping of texts, or a list of `NAME=value`; nothing behind a name is `None`.
    pub(crate) fn pairs(&mut self, key: &'static str) -> Result<Vec<(String, Option<String>)>> {
        let name = self.name(key);
        let Some(node) = self.take(key) else { return Ok(Vec::new()) };
        let node = pairs(node.clone())?;
        let Value::Map(entries) = &node.value else {
            return Err(wrong(&node, &name, "a mapping or a list of NAME=value"));
        };
        let pair = |(key, node): &(String, Node)| match node.value {
            Value::Null => Ok((key.clone(), None)),
            _ => Ok((key.clone(), Some(text(node, &format!("{name}.{key}"))?))),
        };
        entries.iter().map(pair).collect()
    }

    /// The end: what is left is unknown, not supported, or an extension (`x-…`).
    pub(crate) fn finish(self, unsupported: &[&str]) -> Result<()> {
        for (key, node) in &self.left {
            if key.starts_with("x-") {
                continue;
            }
            let place = node.place.clone();
            let name = self.name(key);
            if unsupported.contains(key) {
                return Err(Error::Unsupported { place, what: name });
            }
            let known = self.asked.iter().copied().chain(unsupported.iter().copied());
            let like = known.map(|known| (distance(known, key), known)).min();
            let like = like.filter(|(far, _)| *far <= 2).map(|(_, known)| known.to_owned());
            return Err(Error::Unknown { place, key: name, like });
        }
        Ok(())
    }
}

/// A value of the wrong kind.
pub(crate) fn wrong(node: &Node, key: &str, wanted: &str) -> Error {
    Error::Wrong { place: node.place.clone(), key: key.to_owned(), wanted: wanted.to_owned() }
}

/// What the specification has and we have not.
pub(crate) fn unsupported(node: &Node, what: impl Into<String>) -> Error {
    Error::Unsupported { place: node.place.clone(), what: what.into() }
}

/// A scalar's text.
pub(crate) fn text(node: &Node, key: &str) -> Result<String> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(text.clone()),
        _ => Err(wrong(node, key, "text")),
    }
}

/// The items of a list; one value alone is a list of one.
pub(crate) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(list) => list,
        Value::Null => &[],
        _ => std::slice::from_ref(node),
    }
}

/// PURE: how many letters have to be changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut before = i;
        let mut last = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&other) {
            let here = (*cell + 1).min(last + 1).min(before + usize::from(a != *b));
            before = *cell;
            *cell = here;
            last = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_changes() {
        for (one, other, far) in [
            ("image", "imge", 1),
            ("ports", "port", 1),
            ("a", "", 1),
            ("abc", "abc", 0),
            ("volumes", "volume", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), far, "{one} {other}");
        }
    }
}
