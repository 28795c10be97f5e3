//! `image inspect`.

use clap::Args;

use crate::command::inspect::all;
use crate::session::Session;
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Print with "json" or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Of several platforms, this one
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Verb for Inspect {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        all(&self.names, self.format.as_deref(), |name| {
            Ok(engine.image_inspect_for(name, self.platform.as_deref())?)
        })
    }
}
