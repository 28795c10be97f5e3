//! `build`, `builder` and `buildx`.

mod cache;
mod options;
mod output;
mod screen;

use std::fs;

use cata_engine::build::{BuildRequest, Built};

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Node, Outcome, Verb};
use options::{Build, Call};
use screen::Screen;

pub(crate) const BUILD: Node =
    Node::verb::<Build>("build", "[OPTIONS] PATH | -", "Build an image from a Dockerfile");

const BUILDER_NODES: &[Node] = &[
    BUILD,
    Node::verb::<cache::Du>("du", "", "Show what builds keep"),
    Node::verb::<cache::Prune>("prune", "", "Remove what builds keep"),
];

pub(crate) const BUILDER: Node = Node::group("builder", "Manage builds", BUILDER_NODES);

/// The same under the name that scripts know.
pub(crate) const BUILDX: Node = Node::group("buildx", "The same as builder", BUILDER_NODES);

impl Verb for Build {
    fn call(self, session: &Session) -> Outcome {
        let call = self.look();
        if call != Call::Build {
            return look(&self.request()?, call);
        }
        let quiet = self.quiet;
        let outputs = output::plan(&self)?;
        let mut request = self.request()?;
        request.store = outputs.store;
        let engine = session.engine()?;
        let context = self.archive()?;
        let _unpacked = match context {
            Some(mut archive) => {
                let unpacked = engine.build_context(&mut archive)?;
                request.context = cata_engine::build::Context::Directory(unpacked.path().to_owned());
                self.take_dockerfile_from(&unpacked.path(), &mut request)?;
                Some(unpacked)
            }
            None => None,
        };
        let screen = Screen::new(self.progress, quiet);
        let built = engine.build(&request, &screen);
        let failed = screen.finish();
        let built = built.map_err(|error| {
            let failure = Failure::from(error);
            if quiet && !failed.is_empty() {
                session::note(failed.join("\n"));
            }
            failure
        })?;
        output::write(session, &outputs, &request, &built, &screen)?;
        self.report(&built, &request)?;
        if quiet {
            if let Some(image) = &built.image {
                session::print_line(image.id.to_string())?;
            }
        } else {
            screen.summary(&built, &request);
        }
        Ok(Exit::OK)
    }
}

impl Build {
    /// `--iidfile`, `--metadata-file`.
    fn report(&self, built: &Built, request: &BuildRequest) -> Result<(), Failure> {
        let Some(image) = &built.image else { return Ok(()) };
        let write = |path: &str, text: String| {
            fs::write(path, text).map_err(|e| Failure::io(format!("write {path}"), &e))
        };
        if let Some(path) = &self.iidfile {
            write(path, image.id.to_string())?;
        }
        if let Some(path) = &self.metadata_file {
            let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
            let document = serde_json::json!({
                "containerimage.config.digest": image.id.to_string(),
                "containerimage.digest": image.manifest_digest.to_string(),
                "image.name": names.join(","),
            });
            write(path, format!("{document:#}\n"))?;
        }
        Ok(())
    }
}

/// `--check` and `--call`.
fn look(request: &BuildRequest, call: Call) -> Outcome {
    let outline = cata_engine::build::outline(request)?;
    let file = &request.dockerfile;
    match call {
        Call::Check | Call::Build => {
            if outline.warnings.is_empty() {
                session::print_line("Check complete, no warnings found.")?;
                return Ok(Exit::OK);
            }
            let count = outline.warnings.len();
            let noun = if count == 1 { "warning has" } else { "warnings have" };
            session::print_line(format!("Check complete, {count} {noun} been found!"))?;
            for warning in &outline.warnings {
                session::print(format!("\n{}", warning.text(&file.name, &file.text)))?;
            }
            // As Docker: `--check` exists for scripts.
            Ok(Exit(1))
        }
        Call::Targets => {
            let default = outline.target;
            session::print_line("TARGET")?;
            for (at, (name, _)) in outline.stages.iter().enumerate() {
                let mark = if at == default { " (default)" } else { "" };
                session::print_line(format!("{name}{mark}"))?;
            }
            Ok(Exit::OK)
        }
        Call::Outline => {
            session::print_line("BUILD ARG            VALUE")?;
            for (name, default) in &outline.args {
                let value =
                    request.args.get(name).or(default.as_ref()).map(String::as_str).unwrap_or_default();
                session::print_line(format!("{name:<20} {value}"))?;
            }
            Ok(Exit::OK)
        }
    }
}
