//! `--attach STDIN|STDOUT|STDERR`.

use super::{ParseError, Parsed};

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// In any case.
pub(crate) fn parse(text: &str) -> Parsed<Stream> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" => Ok(Stream::Stdin),
        "stdout" => Ok(Stream::Stdout),
        "stderr" => Ok(Stream::Stderr),
        _ => Err(ParseError::new("valid streams are STDIN, STDOUT and STDERR")),
    }
}
