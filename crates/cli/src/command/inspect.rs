//! `inspect` of everything: containers, images, networks and volumes.

use cata_engine::Engine;
use clap::Args;
use serde_json::Value;

use crate::render::error::Failure;
use crate::render::inspect;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Print with "json" or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Show total file sizes of containers
    #[arg(short, long)]
    size: bool,
    /// Look only among things of this type (container, image, network, volume)
    #[arg(long, value_name = "string")]
    r#type: Option<String>,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

impl Verb for Inspect {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let kind = self.r#type.unwrap_or_default();
        all(&self.names, self.format.as_deref(), |name| {
            Ok(match kind.as_str() {
                // With -s a container is meant first; anything else has no such sizes.
                "" if self.size => match engine.inspect_with_size(name) {
                    Err(cata_engine::Error::NoContainer(_)) => engine.inspect_any(name)?,
                    found => found?,
                },
                "" => engine.inspect_any(name)?,
                "container" => container(engine, name, self.size)?,
                "image" => engine.image_inspect(name)?,
                "network" => engine.network_inspect(name)?,
                "volume" => engine.volume_inspect(name)?,
                other => return Err(Failure::usage(format!("\"{other}\" is not a valid value for --type"))),
            })
        })
    }
}

/// `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectContainer {
    /// Print with "json" or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Show total file sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

impl Verb for InspectContainer {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        all(&self.names, self.format.as_deref(), |name| container(engine, name, self.size))
    }
}

fn container(engine: &Engine, name: &str, size: bool) -> Result<Value, Failure> {
    Ok(if size { engine.inspect_with_size(name)? } else { engine.inspect(name)? })
}

/// What was found is printed; what was not is said after it.
pub(crate) fn all(
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Value, Failure>,
) -> Outcome {
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match find(name) {
            Ok(document) => documents.push(document),
            Err(failure) => failures.push(failure),
        }
    }
    session::print(inspect::text(&documents, format)?)?;
    for failure in &failures {
        failure.report();
    }
    Ok(if failures.is_empty() { Exit::OK } else { Exit(1) })
}
