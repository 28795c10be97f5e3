//! `push`.

use cata_spec::Reference;
use clap::Args;

use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Clone, Args)]
pub(crate) struct Push {
    /// Push every tag that the repository has here
    #[arg(short, long)]
    all_tags: bool,
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
        if self.all_tags {
            return self.all(session);
        }
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

impl Push {
    fn all(self, session: &Session) -> Outcome {
        let (engine, repository) = (session.engine()?, super::repository(&self.name)?);
        let images = engine.image_list()?;
        let names = images.iter().flat_map(|image| &image.names);
        let mut names: Vec<String> =
            names.filter(|name| name.familiar_name() == repository).map(Reference::familiar).collect();
        if names.is_empty() {
            return Err(Failure::usage(format!(
                "an image does not exist locally with the tag: {repository}"
            )));
        }
        names.sort();
        for name in names {
            let _ = Self { all_tags: false, name, ..self.clone() }.call(session)?;
        }
        Ok(Exit::OK)
    }
}
