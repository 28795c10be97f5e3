//! `rmi`, `image rm`.

use cata_engine::images::{RemoveOptions, Removed};
use clap::Args;

use crate::command::each;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Remove every name of an image, and do not mind images that are not there
    #[arg(short, long)]
    force: bool,
    /// Keep parents without a name (no image has any here)
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        // Layers that others have stay; what Docker calls parents does not exist.
        let _ = self.no_prune;
        let engine = session.engine()?;
        each(&self.images, |name| {
            let removed = match engine.image_remove(name, RemoveOptions { force: self.force }) {
                Err(error) => {
                    let failure = Failure::from(error);
                    if self.force && failure.is_not_found() {
                        failure.report();
                        return Ok(());
                    }
                    return Err(failure);
                }
                Ok(removed) => removed,
            };
            let line = |removed: &Removed| match removed {
                Removed::Untagged(name) => format!("Untagged: {}\n", name.familiar()),
                Removed::Deleted(digest) => format!("Deleted: {digest}\n"),
            };
            session::print(removed.iter().map(line).collect::<String>())
        })
    }
}
