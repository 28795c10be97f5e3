//! `--health-on-failure` (also `--on-unhealthy`): what is done with an unhealthy container.

use cata_engine::request::OnUnhealthy;

use super::{ParseError, Parsed};

/// `none`, `kill`, `restart` or `stop`.
pub(crate) fn on_unhealthy(text: &str) -> Parsed<OnUnhealthy> {
    match text {
        "none" => Ok(OnUnhealthy::None),
        "kill" => Ok(OnUnhealthy::Kill),
        "restart" => Ok(OnUnhealthy::Restart),
        "stop" => Ok(OnUnhealthy::Stop),
        _ => Err(ParseError::new(format!("invalid action '{text}': must be none, kill, restart or stop"))),
    }
}
