//! YAML as a tree in which each value knows its line.
//!
//! Scalars keep the text that was written: what it means is for the key to say, so that `1.10` stays `1.10`.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::error::{Error, Place, Result};

/// Deepest nesting.
const DEPTH: usize = 60;
/// Most values of one file, aliases written out.
const SIZE: usize = 100_000;

/// A value and where it stands; of a key's value, where the key does.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// What a merge is to do with it.
    pub merge: Merge,
    /// What it is.
    pub value: Value,
}

/// How a value goes over another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merge {
    /// By the rules of its key.
    #[default]
    Usual,
    /// `!reset`: there is none any more.
    Reset,
    /// `!override`: in place of the other.
    Override,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Text, number or boolean.
    Scalar {
        /// As written.
        text: String,
        /// Without quotes.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Text as if it were written here.
    #[must_use]
    pub fn text_here(&self, text: impl Into<String>) -> Self {
        self.here(Value::Scalar { text: text.into(), plain: false })
    }

    /// A value as if it were written here.
    #[must_use]
    pub fn here(&self, value: Value) -> Self {
        Self { place: self.place.clone(), merge: Merge::Usual, value }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(list) => list.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
            _ => 0,
        }
    }
}

/// The one document of a file.
///
/// # Errors
/// [`Error::Yaml`].
pub fn parse(file: &str, text: &str) -> Result<Node> {
    let mut reader = Reader {
        file: file.into(),
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        size: 0,
        last: 1,
    };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if root.is_some() => return Err(reader.wrong(&span.start, "a second document")),
            event => root = Some(reader.node(event, span, 0)?),
        }
    }
    let place = Place { file: reader.file.clone(), line: 1 };
    Ok(root.unwrap_or(Node { place, merge: Merge::Usual, value: Value::Null }))
}

struct Reader<'i> {
    file: Arc<str>,
    parser: Parser<'i, StrInput<'i>>,
    anchors: HashMap<usize, Node>,
    size: usize,
    last: usize,
}

impl<'i> Reader<'i> {
    fn next(&mut self) -> Result<(Event<'i>, Span)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last = span.start.line();
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.wrong(error.marker(), error.info())),
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, self.last, 0)))),
        }
    }

    fn wrong(&self, at: &Marker, why: impl Into<String>) -> Error {
        Error::Yaml { place: self.place(at), why: why.into() }
    }

    fn place(&self, at: &Marker) -> Place {
        Place { file: self.file.clone(), line: at.line().max(1) }
    }

    fn grow(&mut self, by: usize, at: &Marker) -> Result<()> {
        self.size = self.size.saturating_add(by);
        if self.size > SIZE { Err(self.wrong(at, "more values than are read of one file")) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'i>, span: Span, depth: usize) -> Result<Node> {
        let start = span.start;
        if depth > DEPTH {
            return Err(self.wrong(&start, "nested too deeply"));
        }
        self.grow(1, &start)?;
        let place = self.place(&start);
        let (anchor, tag, value) = match event {
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned();
                let node = node.ok_or_else(|| self.wrong(&start, "an alias of what holds it"))?;
                self.grow(node.size(), &start)?;
                return Ok(Node { place, ..node });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = text.into_owned();
                (anchor, tag, if null { Value::Null } else { Value::Scalar { text, plain } })
            }
            Event::SequenceStart(anchor, tag) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, tag, Value::List(list))
            }
            Event::MappingStart(anchor, tag) => (anchor, tag, Value::Map(self.entries(depth)?)),
            _ => return Err(self.wrong(&start, "a value is missing")),
        };
        let node = Node { place, merge: self.merge(tag.as_deref(), &start)?, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, Node)>> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut inherited: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let at = span.start;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.wrong(&at, "a key must be text")),
            };
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, depth + 1)?;
            node.place = self.place(&at);
            if key == "<<" {
                self.inherit(node, &mut inherited)?;
            } else if entries.iter().any(|(name, _)| *name == key) {
                return Err(self.wrong(&at, format!("the key {key} is there twice")));
            } else {
                entries.push((key, node));
            }
        }
        for (key, node) in inherited {
            if !entries.iter().any(|(name, _)| *name == key) {
                entries.push((key, node));
            }
        }
        Ok(entries)
    }

    /// `<<: *anchor`, `<<: [*one, *two]`: the first to name a key has it.
    fn inherit(&self, node: Node, inherited: &mut Vec<(String, Node)>) -> Result<()> {
        let wrong = || Error::Yaml { place: node.place.clone(), why: "<< takes mappings".to_owned() };
        match node.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    if !inherited.iter().any(|(name, _)| *name == key) {
                        inherited.push((key, node));
                    }
                }
                Ok(())
            }
            Value::List(list) => {
                for item in list {
                    if !matches!(item.value, Value::Map(_)) {
                        return Err(wrong());
                    }
                    self.inherit(item, inherited)?;
                }
                Ok(())
            }
            _ => Err(wrong()),
        }
    }

    fn merge(&self, tag: Option<&Tag>, at: &Marker) -> Result<Merge> {
        match tag {
            None => Ok(Merge::Usual),
            Some(tag) if tag.is_yaml_core_schema() => Ok(Merge::Usual),
            Some(tag) => match (tag.handle.as_str(), tag.suffix.as_str()) {
                ("!", "reset") => Ok(Merge::Reset),
                ("!", "override") => Ok(Merge::Override),
                (handle, suffix) => Err(self.wrong(at, format!("unknown tag {handle}{suffix}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests;
