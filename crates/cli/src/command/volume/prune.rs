//! `volume prune`.

use clap::Args;

use crate::command::prune::{PruneOptions, reclaimed, section};
use crate::parse::boolean;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove volumes with a name too, not only anonymous ones
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneOptions,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let (filter, more) = self.prune.read(&["all"])?;
        let mut all = self.all;
        for value in more.values("all") {
            all |=
                boolean::parse(value).map_err(|_| Failure::usage(format!("invalid filter 'all={value}'")))?;
        }
        let which = if all { "every volume" } else { "every anonymous volume" };
        self.prune.confirm("volume prune", &format!("This removes {which} that no container uses."))?;
        let pruned = session.engine()?.volume_prune(all, &filter)?;
        session::print(section("Deleted Volumes", &pruned.removed))?;
        session::print_line(reclaimed(pruned.freed))?;
        Ok(Exit::OK)
    }
}
