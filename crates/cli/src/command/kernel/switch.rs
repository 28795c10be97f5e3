//! `kernel use`.

use clap::Args;

use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Use {
    #[arg(required = true, value_name = "KERNEL")]
    name: String,
}

impl Verb for Use {
    fn call(self, session: &Session) -> Outcome {
        session::print_line(session.engine()?.kernel_use(&self.name)?)?;
        Ok(Exit::OK)
    }
}
