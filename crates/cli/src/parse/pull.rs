//! `--pull always|missing|never`.

use cata_engine::request::PullPolicy;

use super::{ParseError, Parsed};

/// Docker's words.
pub(crate) fn parse(text: &str) -> Parsed<PullPolicy> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" | "" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err(ParseError::new(format!(
            "invalid pull option: '{text}': must be one of \"always\", \"missing\" or \"never\""
        ))),
    }
}
