//! `pause` and `unpause`.

use clap::Args;

use crate::command::each;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Pause {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.containers, |name| {
            engine.pause(name)?;
            session::print_line(name)
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Unpause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Unpause {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.containers, |name| {
            engine.unpause(name)?;
            session::print_line(name)
        })
    }
}
