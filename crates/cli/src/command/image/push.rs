//! `push`.

use cata_spec::Reference;
use clap::Args;

use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Print only the image's full name
    #[arg(short, long)]
    quiet: bool,
    /// Push only the image for this platform
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(required = true, value_name = "NAME")]
    name: String,
}

impl Verb for Push {
    fn call(self, session: &Session) -> Outcome {
        let reference = Reference::parse(&self.name).map_err(|e| Failure::usage(e.to_string()))?;
        if !self.quiet {
            session::print_line(format!("The push refers to repository [{}]", reference.name()))?;
        }
        let screen = Screen::new(if self.quiet { To::Nowhere } else { To::Stdout });
        let pushed = session.engine()?.image_push(&self.name, self.platform.as_deref(), &screen)?;
        if self.quiet {
            session::print_line(reference.to_string())?;
        } else {
            let selector = reference.manifest_selector();
            session::print_line(format!("{selector}: digest: {} size: {}", pushed.digest, pushed.size))?;
        }
        Ok(Exit::OK)
    }
}
