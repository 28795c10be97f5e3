//! `volume rm`.

use clap::Args;

use crate::command::each;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Do not mind volumes that are not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.names, |name| {
            engine.volume_remove(name, self.force)?;
            session::print_line(name)
        })
    }
}
