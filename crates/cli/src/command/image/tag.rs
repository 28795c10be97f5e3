//! `tag`.

use clap::Args;

use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Tag {
    #[arg(required = true, value_name = "SOURCE_IMAGE")]
    source: String,
    #[arg(required = true, value_name = "TARGET_IMAGE")]
    target: String,
}

impl Verb for Tag {
    fn call(self, session: &Session) -> Outcome {
        session.engine()?.image_tag(&self.source, &self.target)?;
        Ok(Exit::OK)
    }
}
