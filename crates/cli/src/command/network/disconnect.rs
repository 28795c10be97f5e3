//! `network disconnect`.

use clap::Args;

use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    /// Also take away what is left of a container that is gone
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    network: String,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

impl Verb for Disconnect {
    fn call(self, session: &Session) -> Outcome {
        session.engine()?.network_disconnect(&self.network, &self.container, self.force)?;
        Ok(Exit::OK)
    }
}
