//! `kernel rm`.

use clap::Args;

use crate::command::each;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[arg(required = true, value_name = "KERNEL")]
    names: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.names, |name| session::print_line(engine.kernel_remove(name)?))
    }
}
