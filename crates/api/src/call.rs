//! One request as the endpoints see it, and what they answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use cata_engine::prune::{LabelTest, PruneFilter};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::refusal::{Outcome, Refusal};

/// The longest document that is read.
const LONGEST: u64 = 4 << 20;

/// One request.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Without the version in front.
    pub(crate) path: String,
    /// As (major 1, minor); what is not said is the newest.
    pub(crate) version: u32,
    query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Input,
}

impl Call {
    pub(crate) fn new(
        (method, path, version): (Method, String, u32),
        query: &str,
        headers: HeaderMap,
        body: Input,
    ) -> Self {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { method, path, version, query, headers, body }
    }

    /// A word of the query; an empty one is none.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Every value of a name of the query.
    pub(crate) fn words(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// A yes or no, as Go's client and people write it.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.word(name)
            .is_some_and(|word| !matches!(word.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "none"))
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Outcome<Option<i64>> {
        let parse =
            |word: &str| word.parse().map_err(|_| Refusal::invalid(format!("invalid {name}: {word}")));
        self.word(name).map(parse).transpose()
    }

    /// The document of the body; an empty body is an empty object.
    pub(crate) fn document(&mut self) -> Outcome<Value> {
        let mut text = Vec::new();
        (&mut self.body).take(LONGEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Err(Refusal::invalid("the request's document is too long"));
        }
        if text.trim_ascii().is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&text).map_err(|e| Refusal::invalid(format!("invalid JSON: {e}")))
    }

    /// `filters`: names with the values of which one must fit. Old clients write `{"name": {"value": true}}`.
    pub(crate) fn filters(&self, known: &[&str]) -> Outcome<Filters> {
        let mut filters = BTreeMap::new();
        let Some(text) = self.word("filters") else { return Ok(Filters(filters)) };
        let invalid = || Refusal::invalid(format!("invalid filters: {text}"));
        let document: Value = serde_json::from_str(text).map_err(|_| invalid())?;
        for (name, values) in document.as_object().ok_or_else(invalid)? {
            if !known.contains(&name.as_str()) {
                return Err(Refusal::invalid(format!("invalid filter '{name}'")));
            }
            let values: Vec<String> = match values {
                Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                Value::Object(map) => map.keys().cloned().collect(),
                _ => return Err(invalid()),
            };
            filters.insert(name.clone(), values);
        }
        Ok(Filters(filters))
    }
}

/// What was asked for: each name with the values of which one must fit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(pub(crate) BTreeMap<String, Vec<String>>);

impl Filters {
    /// The values under a name.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing was asked under `name`, or one of its values passes `test`.
    pub(crate) fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether labels fit all that is asked of them.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label").iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }

    /// What a prune spares, of `label`, `label!` and `until`.
    pub(crate) fn prune(&self) -> Outcome<PruneFilter> {
        let mut filter = PruneFilter::default();
        for (name, negated) in [("label", false), ("label!", true)] {
            for text in self.values(name) {
                let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
                filter.labels.push(LabelTest {
                    key: key.to_owned(),
                    value: value.map(str::to_owned),
                    negated,
                });
            }
        }
        if let Some(text) = self.values("until").first() {
            let moment = crate::time::moment(text)
                .ok_or_else(|| Refusal::invalid(format!("invalid until: {text}")))?;
            filter.until = Some(u64::try_from(moment).unwrap_or(0));
        }
        Ok(filter)
    }
}

/// The body of a request, as it comes.
pub(crate) struct Input {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Input {
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new() }
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let length = into.len().min(self.piece.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Where a streamed answer is written to.
pub(crate) struct Output {
    pieces: mpsc::Sender<Bytes>,
    /// Hangs up when the client has gone.
    pub(crate) gone: OwnedFd,
}

impl Output {
    pub(crate) fn new(pieces: mpsc::Sender<Bytes>, gone: OwnedFd) -> Self {
        Self { pieces, gone }
    }

    /// A document and a newline.
    pub(crate) fn line(&self, document: &Value) -> io::Result<()> {
        self.send(format!("{document}\r\n").into_bytes())
    }

    pub(crate) fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.pieces.blocking_send(bytes.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes.to_vec())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that was taken over, and what the client has said on it already.
pub(crate) struct Line {
    pub(crate) socket: UnixStream,
    pub(crate) early: Bytes,
}

/// Writes the body of a streamed answer.
pub(crate) type Writer = Box<dyn FnOnce(&mut Output) + Send>;
/// Speaks on a connection that was taken over.
pub(crate) type Speaker = Box<dyn FnOnce(Line) + Send>;

/// What comes back.
pub(crate) enum Answer {
    /// A document.
    Document(StatusCode, Value),
    /// No body.
    Empty(StatusCode),
    /// Text.
    Text(&'static str),
    /// A body that is made as it is sent.
    Stream { kind: &'static str, headers: Vec<(&'static str, String)>, write: Writer },
    /// The connection itself. What the stream is, to clients that ask for it.
    Hijack { kind: &'static str, speak: Speaker },
}

impl Answer {
    /// A document, and all is well.
    pub(crate) fn ok(document: Value) -> Outcome<Self> {
        Ok(Self::Document(StatusCode::OK, document))
    }

    /// Done, and nothing to say.
    pub(crate) fn done() -> Outcome<Self> {
        Ok(Self::Empty(StatusCode::NO_CONTENT))
    }

    /// Documents, a line each.
    pub(crate) fn lines(write: impl FnOnce(&mut Output) + Send + 'static) -> Outcome<Self> {
        Ok(Self::Stream { kind: "application/json", headers: Vec::new(), write: Box::new(write) })
    }
}
