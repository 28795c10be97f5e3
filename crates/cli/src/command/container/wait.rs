//! `wait`: until containers stop; prints their exit codes.

use cata_engine::Until;
use clap::Args;

use crate::command::each_at_once;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Wait {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let wait = |name: &str| Ok(engine.wait(name, Until::NotRunning)?.code);
        each_at_once(&self.containers, wait, |_, code| session::print_line(code.to_string()))
    }
}
