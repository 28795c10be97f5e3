//! `stop`: all at once, each with its own grace.

use cata_engine::container::life::Stopped;
use clap::Args;

use crate::command::each_at_once;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Signal to send first
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before the containers are killed (-1: for ever)
    #[arg(short, long, visible_alias = "time", value_name = "int", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Stop {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each_at_once(
            &self.containers,
            |name| Ok(engine.stop(name, self.signal.as_deref(), self.timeout)?),
            |name, stopped| {
                if let Stopped::Ignored(signal) = stopped {
                    session::note(format!(
                        "WARNING: nothing in {name} handles signal {signal}: it had to be killed; --init, or --stop-signal with a signal it handles, would help"
                    ));
                }
                session::print_line(name)
            },
        )
    }
}
