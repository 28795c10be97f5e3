//! `kill`: a signal to running containers.

use clap::Args;

use crate::command::each;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send instead of KILL
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Kill {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.containers, |name| {
            engine.kill(name, self.signal.as_deref())?;
            session::print_line(name)
        })
    }
}
