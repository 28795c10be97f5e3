//! What a client is told when something is not done: a status and a message.

use cata_engine::error::chain;
use cata_engine::{Error, Kind};
use hyper::StatusCode;

/// An answer that is no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Of a command that could not be started.
    pub(crate) exit_code: Option<u8>,
}

/// What every endpoint returns.
pub(crate) type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    /// The client asked for what makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), exit_code: None }
    }

    /// There is no such thing.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into(), exit_code: None }
    }

    /// Docker has it, this engine has not.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        let message = format!("{what} is not supported by cata");
        Self { status: StatusCode::NOT_IMPLEMENTED, message, exit_code: None }
    }

    /// The state of a thing forbids it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, message: message.into(), exit_code: None }
    }

    /// It failed.
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: chain(error), exit_code: None }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict | Kind::InvalidState => StatusCode::CONFLICT,
            // As Docker: a command that is not there is the request's fault.
            Kind::InvalidArgument | Kind::Command(_) => StatusCode::BAD_REQUEST,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Kind::Exhausted | Kind::Unavailable | Kind::Timeout | Kind::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let mut message = chain(&error);
        if let Some(hint) = error.hint() {
            message.push_str(&format!(" ({hint})"));
        }
        let exit_code = match error.kind() {
            Kind::Command(code) => Some(code),
            _ => None,
        };
        Self { status, message, exit_code }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::failed(&error)
    }
}
