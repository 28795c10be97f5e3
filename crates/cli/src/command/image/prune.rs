//! `image prune`.

use clap::Args;

use crate::command::prune::{PruneOptions, reclaimed, removed_images, section};
use crate::parse::boolean;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove images with a name too, if no container is made of them
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneOptions,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let (filter, more) = self.prune.read(&["dangling"])?;
        let mut all = self.all;
        for value in more.values("dangling") {
            let only = boolean::parse(value)
                .map_err(|_| Failure::usage(format!("invalid filter 'dangling={value}'")))?;
            all = !only;
        }
        let what = if all {
            "This removes every image that no container is made of."
        } else {
            "This removes every image without a name that no container is made of."
        };
        self.prune.confirm("image prune", what)?;
        let pruned = session.engine()?.image_prune(all, &filter)?;
        session::print(section("Deleted Images", &removed_images(&pruned.removed)))?;
        session::print_line(reclaimed(pruned.freed))?;
        Ok(Exit::OK)
    }
}
