//! `pull`.

use cata_spec::Reference;
use clap::Args;

use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Clone, Args)]
pub(crate) struct Pull {
    /// Pull every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Take an image of several platforms whole, to push it on or to save it
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Choose the platform of an image that has several
    #[arg(long, value_name = "string", env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    platform: Option<String>,
    /// Print only the image's full name
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "NAME")]
    name: String,
}

impl Verb for Pull {
    fn call(self, session: &Session) -> Outcome {
        if self.all_tags {
            return self.all(session);
        }
        let reference = Reference::parse(&self.name).map_err(|e| Failure::usage(e.to_string()))?;
        let selector = reference.manifest_selector();
        if !self.quiet {
            if Reference::parse_untagged(&self.name).is_ok_and(|r| r.tag().is_none() && r.digest().is_none())
            {
                session::print_line(format!("Using default tag: {selector}"))?;
            }
            session::print_line(format!("{selector}: Pulling from {}", reference.repository()))?;
        }
        let screen = Screen::new(if self.quiet { To::Nowhere } else { To::Stdout });
        let platform = self.platform.as_deref().filter(|p| !p.is_empty());
        let engine = session.engine()?;
        let pulled = if self.all_platforms {
            engine.image_pull_index(&self.name, &screen)?
        } else {
            engine.image_pull(&self.name, platform, &screen)?
        };
        if !self.quiet {
            session::print_line(format!("Digest: {}", pulled.digest))?;
            let status =
                if pulled.changed { "Downloaded newer image for" } else { "Image is up to date for" };
            session::print_line(format!("Status: {status} {}", reference.familiar()))?;
        }
        session::print_line(reference.to_string())?;
        Ok(Exit::OK)
    }
}

impl Pull {
    fn all(self, session: &Session) -> Outcome {
        let (engine, repository) = (session.engine()?, super::repository(&self.name)?);
        for tag in engine.image_tags(&self.name)? {
            let one = Self { all_tags: false, name: format!("{repository}:{tag}"), ..self.clone() };
            let _ = one.call(session)?;
        }
        Ok(Exit::OK)
    }
}
