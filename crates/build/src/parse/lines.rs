//! Physical lines become logical ones: directives, comments, continuations.

use crate::ast::{Directives, Oddity, OddityKind};
use crate::error::{Error, Result};

/// One instruction's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    /// Its first line; the first of the file is 1.
    pub(super) number: usize,
    /// Continued lines joined.
    pub(super) text: String,
    /// Comments right above it.
    pub(super) comments: Vec<String>,
}

/// Reads the directives at the top; returns them and the first line behind them, counted from 0.
pub(super) fn directives(text: &str) -> Result<(Directives, usize)> {
    let mut found = Directives::default();
    let mut seen: Vec<String> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        // A shebang makes a Dockerfile executable.
        if at == 0 && line.starts_with("#!") {
            continue;
        }
        let Some(comment) = line.strip_prefix('#') else { return Ok((found, at)) };
        let Some((name, value)) = comment.split_once('=') else { return Ok((found, at)) };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "syntax" | "escape" | "check") {
            return Ok((found, at));
        }
        if seen.contains(&name) {
            return Err(Error::new(format!("only one {name} parser directive can be used")).on(at + 1));
        }
        match (name.as_str(), value) {
            ("syntax", value) => found.syntax = Some(value.to_owned()),
            ("check", value) => found.check = Some(value.to_owned()),
            (_, "\\") => found.escape = '\\',
            (_, "`") => found.escape = '`',
            (_, other) => {
                return Err(Error::new(format!("invalid escape token `{other}` does not match ` or \\"))
                    .at(other)
                    .on(at + 1));
            }
        }
        seen.push(name);
    }
    Ok((found, text.lines().count()))
}

/// The lines of a file under way.
pub(super) struct Lines<'t> {
    lines: Vec<&'t str>,
    next: usize,
    pub(super) escape: char,
    pub(super) oddities: Vec<Oddity>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str, first: usize, escape: char) -> Self {
        Self { lines: text.lines().collect(), next: first, escape, oddities: Vec::new() }
    }

    /// The next instruction's text; `None` at the end.
    pub(super) fn next_logical(&mut self) -> Option<Logical> {
        let mut text: Option<(usize, String)> = None;
        let mut comments = Vec::new();
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            let number = self.next;
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix('#') {
                if text.is_none() {
                    comments.push(comment.trim().to_owned());
                }
                continue;
            }
            if trimmed.is_empty() {
                if text.is_none() {
                    comments.clear();
                } else {
                    self.oddities.push(Oddity { line: number, kind: OddityKind::EmptyContinuation });
                }
                continue;
            }
            let (piece, more) = continued(line, self.escape);
            match &mut text {
                Some((_, text)) => text.push_str(piece),
                None => text = Some((number, piece.trim_start().to_owned())),
            }
            if !more {
                break;
            }
        }
        let (number, text) = text?;
        let text = text.trim().to_owned();
        if text.is_empty() { self.next_logical() } else { Some(Logical { number, text, comments }) }
    }

    /// The next line as it is, for here-documents.
    pub(super) fn next_raw(&mut self) -> Option<&'t str> {
        let line = self.lines.get(self.next).copied();
        self.next += usize::from(line.is_some());
        line
    }

    /// How many lines have been taken: the last one's number.
    pub(super) fn taken(&self) -> usize {
        self.next
    }
}

/// A line without its continuation mark, and whether it had one: an escape with nothing but space behind it.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end().strip_suffix(escape) {
        Some(piece) => (piece, true),
        None => (line, false),
    }
}
