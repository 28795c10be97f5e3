//! `network rm`.

use clap::Args;

use crate::command::each;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Do not mind networks that are not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each(&self.names, |name| match engine.network_remove(name).map_err(Failure::from) {
            Err(failure) if self.force && failure.is_not_found() => Ok(()),
            Err(failure) => Err(failure),
            Ok(_) => session::print_line(name),
        })
    }
}
