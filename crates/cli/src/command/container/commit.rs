//! `commit`.

use cata_engine::container::commit::CommitOptions;
use clap::Args;

use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Say who made it
    #[arg(short, long, value_name = "string")]
    author: Option<String>,
    /// Apply a Dockerfile instruction to the image (CMD, ENV, …)
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Say why in the image's history
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Let the container run on while its files are read
    #[arg(long)]
    no_pause: bool,
    /// Freeze the container while its files are read (as is done anyway)
    #[arg(short, long, hide = true, overrides_with = "no_pause", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pause: Option<bool>,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "REPOSITORY")]
    name: Option<String>,
}

impl Verb for Commit {
    fn call(self, session: &Session) -> Outcome {
        let options = CommitOptions {
            name: self.name,
            author: self.author,
            message: self.message,
            changes: self.change,
            no_pause: self.no_pause || self.pause == Some(false),
        };
        let image = session.engine()?.container_commit(&self.container, &options)?;
        session::print_line(image.id.to_string())?;
        Ok(Exit::OK)
    }
}
