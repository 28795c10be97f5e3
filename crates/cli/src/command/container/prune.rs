//! `container prune`.

use clap::Args;

use crate::command::prune::{PruneOptions, reclaimed, section};
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
        self.prune.confirm("container prune", "This removes every container that does not run.")?;
        let pruned = session.engine()?.container_prune(&filter)?;
        session::print(section("Deleted Containers", &pruned.removed))?;
        session::print_line(reclaimed(pruned.freed))?;
        Ok(Exit::OK)
    }
}
