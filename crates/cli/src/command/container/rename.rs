//! `rename`.

use clap::Args;

use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
    #[arg(required = true, value_name = "NEW_NAME")]
    name: String,
}

impl Verb for Rename {
    fn call(self, session: &Session) -> Outcome {
        session.engine()?.rename(&self.container, &self.name)?;
        Ok(Exit::OK)
    }
}
