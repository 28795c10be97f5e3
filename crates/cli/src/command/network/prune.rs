//! `network prune`.

use clap::Args;

use crate::command::prune::{PruneOptions, section};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    prune: PruneOptions,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let (filter, _) = self.prune.read(&[])?;
        self.prune.confirm("network prune", "This removes every network that no container was made for.")?;
        let pruned = session.engine()?.network_prune(&filter)?;
        session::print(section("Deleted Networks", &pruned.removed))?;
        Ok(Exit::OK)
    }
}
