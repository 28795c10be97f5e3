//! `build`, `pull`, `images`: the images of services.

use std::collections::BTreeSet;

use cata_compose::graph;
use clap::Args;

use super::project::load;
use super::{existing, resources};
use crate::render::listing::{self, Kind, Row};
use crate::render::size;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Set a build argument
    #[arg(long, value_name = "name=value")]
    build_arg: Vec<String>,
    /// Do not use what earlier builds made
    #[arg(long)]
    no_cache: bool,
    /// Always try to pull newer images that the builds begin with
    #[arg(long)]
    pull: bool,
    /// Print only what went wrong
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Build {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let mut more: Vec<String> = self.build_arg.iter().map(|text| format!("--build-arg={text}")).collect();
        for (flag, word) in [(self.no_cache, "--no-cache"), (self.pull, "--pull"), (self.quiet, "--quiet")] {
            more.extend(flag.then(|| word.to_owned()));
        }
        for name in graph::chosen(&loaded.project.services, &self.services, true)? {
            resources::build(session, &loaded, loaded.service(&name)?, &more)?;
        }
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Print only what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// Pull those of the services that the named ones depend on too
    #[arg(long)]
    include_deps: bool,
    /// Leave out services that can be built
    #[arg(long)]
    ignore_buildable: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Pull {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let chosen = graph::chosen(&loaded.project.services, &self.services, !self.include_deps)?;
        let services = chosen.iter().filter_map(|name| loaded.project.services.get(name));
        let pulled = services.filter(|s| s.image.is_some() && !(self.ignore_buildable && s.build.is_some()));
        let wanted = pulled.map(|s| (loaded.project.image(s), s.platform().map(str::to_owned)));
        let images: BTreeSet<resources::Wanted> = wanted.collect();
        resources::pull(session.engine()?, &images.into_iter().collect::<Vec<_>>(), self.quiet)?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Print with "table", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

const KIND: Kind = Kind {
    table: "{{.ContainerName}}\t{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ContainerName", "CONTAINER"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("Size", "SIZE"),
    ],
};

impl Verb for Images {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let engine = session.engine()?;
        let mut rows = Vec::new();
        for one in existing::of(engine, &loaded, &self.services)? {
            let facts = &one.view.record.image;
            let (repository, tag) = match facts.reference.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository, tag),
                _ => (facts.reference.as_str(), "latest"),
            };
            let hex = facts.id.trim_start_matches("sha256:");
            // An image that was removed meanwhile has no size.
            let bytes = engine.image(&facts.id).map(|image| size::decimal(image.size)).unwrap_or_default();
            let cells = [
                ("ContainerName", one.name().to_owned()),
                ("Repository", repository.to_owned()),
                ("Tag", tag.to_owned()),
                ("ID", hex.get(..12).unwrap_or(hex).to_owned()),
                ("Size", bytes),
            ];
            rows.push(cells.into_iter().collect::<Row>());
        }
        listing::print(&KIND, &rows, self.format.as_deref(), self.quiet)?;
        Ok(Exit::OK)
    }
}
