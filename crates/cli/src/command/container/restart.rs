//! `restart`: all at once.

use clap::Args;

use crate::command::each_at_once;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Signal to send first
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before the containers are killed (-1: for ever)
    #[arg(short, long, visible_alias = "time", value_name = "int", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Restart {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let restart = |name: &str| {
            if let Some(signal) = &self.signal {
                // The supervisor's restart uses the container's own signal: with another one it is a stop
                // and a start.
                engine.stop(name, Some(signal), self.timeout)?;
            }
            Ok(engine.restart(name, self.timeout)?)
        };
        each_at_once(&self.containers, restart, |name, ()| session::print_line(name))
    }
}
