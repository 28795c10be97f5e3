//! Text of flags to values: pure, no file or clock is looked at unless the function's name says so.
//!
//! Wording follows Docker's where scripts match on it. Every function takes what was typed and returns a
//! value or a [`ParseError`]; the flag's name is added by whoever knows it (clap, or `options`).

pub(crate) mod block;
pub(crate) mod boolean;
pub(crate) mod cache;
pub(crate) mod cpus;
pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod key_value;
pub(crate) mod log;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod size;
pub(crate) mod stream;
pub(crate) mod time;
pub(crate) mod ulimit;
pub(crate) mod volume;

/// Why a flag's value cannot be used; the text names the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ParseError(pub(crate) String);

impl ParseError {
    /// An error with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The result of every parser here.
pub(crate) type Parsed<T> = Result<T, ParseError>;
