//! What went wrong, for people (`error: …`, `hint: …`) and for scripts (the exit code).

use std::io::{self, IsTerminal as _};

use cata_engine::Kind;

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    origin: Origin,
    text: String,
    hint: Option<String>,
}

/// Where a failure came from: decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Flags that are not understood.
    Flag,
    /// A flag that is understood, with a value that makes no sense.
    Value,
    /// The wrong number of arguments, or an unknown command.
    Usage,
    /// The engine.
    Engine(Kind),
    /// This end: own files, terminal, output.
    Client,
    /// The reader of our output has gone: nothing is said.
    Quiet,
}

/// Which verbs keep the engine's own failures apart from a program's exit code, as Docker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `run`: 125 is the engine's, 126 and 127 say that the command cannot be started.
    Run,
    /// `exec`: 126 and 127 likewise; the engine's own is 1.
    Exec,
    /// Everything else.
    Other,
}

impl Failure {
    /// A flag's value, or flags that exclude each other.
    pub(crate) fn flag(text: impl Into<String>) -> Self {
        Self { origin: Origin::Flag, text: text.into(), hint: None }
    }

    /// The wrong number of arguments, or an unknown command.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { origin: Origin::Usage, text: text.into(), hint: None }
    }

    /// Something on this side of the engine.
    pub(crate) fn client(text: impl Into<String>) -> Self {
        Self { origin: Origin::Client, text: text.into(), hint: None }
    }

    /// An I/O error on this side of the engine.
    pub(crate) fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::client(format!("{what}: {}", plain(error)))
    }

    /// Standard output could not be written.
    #[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { origin: Origin::Quiet, text: String::new(), hint: None };
        }
        Self::io("write to standard output", &error)
    }

    /// What the engine says of a stream that it wrote to standard output: nothing, when whoever read it has
    /// seen enough.
    pub(crate) fn streamed(error: cata_engine::Error) -> Self {
        if chain(&error).contains("Broken pipe") {
            return Self::output(io::ErrorKind::BrokenPipe.into());
        }
        error.into()
    }

    /// Adds the way out.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, of something in a file: no flag that was typed is wrong.
    pub(crate) fn of(mut self, what: impl std::fmt::Display) -> Self {
        if matches!(self.origin, Origin::Flag | Origin::Value) {
            self.origin = Origin::Client;
        }
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The text alone.
    pub(crate) fn message(&self) -> &str {
        &self.text
    }

    /// Whether the engine did not find what was named.
    pub(crate) fn is_not_found(&self) -> bool {
        self.origin == Origin::Engine(Kind::NotFound)
    }

    /// The exit code.
    pub(crate) fn exit_code(&self, family: Family) -> u8 {
        match (self.origin, family) {
            (Origin::Quiet, _) => 0,
            (Origin::Flag, _) => 125,
            (Origin::Engine(Kind::Command(code)), Family::Run | Family::Exec) => code,
            (Origin::Engine(_) | Origin::Client | Origin::Value, Family::Run) => 125,
            (Origin::Usage | Origin::Value | Origin::Engine(_) | Origin::Client, _) => 1,
        }
    }

    /// The text on standard error, with line ends; empty when there is nothing to say.
    pub(crate) fn text(&self, colour: bool) -> String {
        if self.origin == Origin::Quiet {
            return String::new();
        }
        let (red, cyan, off) = if colour { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{off} {}\n", self.text.trim_end());
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{cyan}hint:{off} {hint}\n"));
        }
        text
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) {
        use std::io::Write as _;
        // Standard error is the last resort: nobody can be told if it fails.
        let _ = io::stderr().lock().write_all(self.text(colour_on_stderr()).as_bytes());
    }
}

impl From<cata_engine::Error> for Failure {
    fn from(error: cata_engine::Error) -> Self {
        Self { origin: Origin::Engine(error.kind()), text: chain(&error), hint: error.hint() }
    }
}

impl From<cata_compose::Error> for Failure {
    fn from(error: cata_compose::Error) -> Self {
        Self::client(error.to_string())
    }
}

impl From<crate::parse::ParseError> for Failure {
    fn from(error: crate::parse::ParseError) -> Self {
        Self { origin: Origin::Value, text: error.to_string(), hint: None }
    }
}

/// An error with its sources, joined by `: `, none said twice.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = match source.downcast_ref::<io::Error>() {
            Some(error) => plain(error),
            None => source.to_string(),
        };
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    without_numbers(&text)
}

/// Rust's `(os error 2)` behind what the system says is of no use to people.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => plain.push_str(rest),
            _ => {
                plain.push_str(" (os error ");
                plain.push_str(part);
            }
        }
    }
    plain
}

/// An I/O error as C says it: lower case, without Rust's `(os error 2)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// Colours are for terminals, and not for those who said no.
fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Failure, Family, chain};

    #[derive(Debug, thiserror::Error)]
    #[error("open /x")]
    struct Open(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("load image: open /x")]
    struct Load(#[source] Open);

    #[test]
    fn chain_says_nothing_twice() {
        let error = Load(Open(io::Error::from_raw_os_error(2)));
        assert_eq!(chain(&error), "load image: open /x: no such file or directory");
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        let says = super::without_numbers;
        assert_eq!(says("set `x`: No such file (os error 2): y (os error 13)"), "set `x`: No such file: y");
        assert_eq!(says("a (os error two) b (os error 1"), "a (os error two) b (os error 1");
    }

    #[test]
    fn text_has_colours_only_when_asked() {
        let failure = Failure::client("it broke").with_hint("mend it");
        insta::assert_snapshot!(failure.text(false), @r"
        error: it broke
        hint: mend it
        ");
        insta::assert_debug_snapshot!(failure.text(true), @r#""\u{1b}[1;31merror:\u{1b}[0m it broke\n\u{1b}[1;36mhint:\u{1b}[0m mend it\n""#);
    }

    #[test]
    fn exit_codes_are_dockers() {
        use cata_engine::Error;
        let start = |code| {
            Failure::from(Error::Start { name: "a".into(), exit_code: code, message: "m".into(), hint: None })
        };
        assert_eq!(start(127).exit_code(Family::Run), 127);
        assert_eq!(start(126).exit_code(Family::Exec), 126);
        assert_eq!(start(125).exit_code(Family::Run), 125);
        assert_eq!(start(125).exit_code(Family::Exec), 1);
        assert_eq!(start(127).exit_code(Family::Other), 1);
        let missing = || Failure::from(Error::NoContainer("x".into()));
        assert_eq!(missing().exit_code(Family::Run), 125);
        assert_eq!(missing().exit_code(Family::Other), 1);
        assert_eq!(Failure::flag("x").exit_code(Family::Other), 125);
        assert_eq!(Failure::usage("x").exit_code(Family::Run), 1);
        assert_eq!(Failure::output(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(Family::Other), 0);
    }
}
