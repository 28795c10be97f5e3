//! `build`, `builder` and `buildx`.

mod cache;
mod look;
mod options;
mod output;
mod screen;

use std::fs;
use std::time::Instant;

use cata_engine::build::{
    BuildEvent, BuildProgress as _, BuildRequest, Built, Context, KeyAgent, Keys, NamedContext,
    RemoteContext, Unpacked,
};

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Node, Outcome, Verb};
use options::{Build, Call};
use screen::Screen;

pub(crate) const BUILD: Node =
    Node::verb::<Build>("build", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile");

const BUILDER_NODES: &[Node] = &[
    BUILD.also(&["b"]),
    Node::verb::<cache::Du>("du", "", "Show what builds keep"),
    Node::verb::<cache::Prune>("prune", "", "Remove what builds keep"),
];

pub(crate) const BUILDER: Node = Node::group("builder", "Manage builds", BUILDER_NODES);

/// The same under the name that scripts know.
pub(crate) const BUILDX: Node = Node::group("buildx", "The same as builder", BUILDER_NODES);

impl Verb for Build {
    fn call(self, session: &Session) -> Outcome {
        let look = self.look();
        let quiet = self.quiet;
        let outputs = output::plan(&self)?;
        let mut request = self.request()?;
        request.store = outputs.store;
        request.output = outputs.image.clone();
        for name in &outputs.names {
            if !request.tags.contains(name) {
                request.tags.push(name.clone());
            }
        }
        let screen = Screen::new(self.progress, quiet || look.call != Call::Build);
        let _contexts = match self.contexts(session, &mut request, &screen) {
            Ok(contexts) => contexts,
            Err(failure) => {
                drop(screen.finish());
                return Err(failure);
            }
        };
        if look.call != Call::Build {
            drop(screen.finish());
            return look::look(&request, look);
        }
        let engine = session.engine()?;
        screen.watch_signals()?;
        let built = engine.build(&request, &screen);
        let failed = screen.finish();
        if let (Err(_), Some(signal)) = (&built, screen.interrupted()) {
            session::note("cancelled; the steps that were done are kept");
            return Ok(Exit(128 + signal));
        }
        let built = built.map_err(|error| {
            let failure = Failure::from(error);
            if quiet && !failed.is_empty() {
                session::note(failed.join("\n"));
            }
            failure
        })?;
        output::write(session, &outputs, &request, &built, &screen)?;
        self.report(session, &built, &request)?;
        if quiet {
            if let Some(image) = &built.image {
                session::print_line(identity(image))?;
            }
        } else {
            screen.summary(&built, &request);
        }
        Ok(Exit::OK)
    }
}

/// A build as if these words had been typed; the Dockerfile's text may be given.
pub(crate) fn perform(session: &Session, words: Vec<String>, inline: Option<String>) -> Outcome {
    let mut build: Build = crate::tree::typed(&BUILD, words)?;
    build.inline = inline;
    build.call(session)
}

/// Contexts that do not stay: gone when this is dropped.
#[derive(Default)]
struct Contexts {
    _unpacked: Option<Unpacked>,
    _remote: Vec<RemoteContext>,
    _agents: Vec<KeyAgent>,
}

impl Build {
    /// Fetches or unpacks what the request's contexts are, where they are no directories of this host.
    fn contexts(
        &self,
        session: &Session,
        request: &mut BuildRequest,
        screen: &Screen,
    ) -> Result<Contexts, Failure> {
        let mut contexts = Contexts::default();
        for (id, files) in self.keys()? {
            let agent = session.engine()?.key_agent(&files)?;
            request.ssh.insert(id, agent.socket());
            contexts._agents.push(agent);
        }
        if let Some(mut archive) = self.archive()? {
            let unpacked = session.engine()?.build_context(&mut archive)?;
            request.context = Context::Directory(unpacked.path());
            if self.remote_dockerfile().is_none() {
                self.take_dockerfile_from(&unpacked.path(), request)?;
            }
            contexts._unpacked = Some(unpacked);
        }
        if let Some(address) = self.remote() {
            let fetched = fetch(session, address, request, screen)?;
            request.context = Context::Directory(fetched.path().to_owned());
            if self.dockerfile_is_in_context() {
                self.take_dockerfile_from(fetched.path(), request)?;
            }
            contexts._remote.push(fetched);
        }
        if let Some(address) = self.remote_dockerfile() {
            let fetched = fetch(session, address, request, screen)?;
            self.take_lone_dockerfile(fetched.path(), address, request)?;
            contexts._remote.push(fetched);
        }
        for (name, address) in self.remote_contexts() {
            let fetched = fetch(session, address, request, screen)?;
            let directory = NamedContext::Directory(fetched.path().to_owned());
            request.contexts.insert(name.to_owned(), directory);
            contexts._remote.push(fetched);
        }
        Ok(contexts)
    }

    /// `--iidfile`, `--metadata-file`.
    fn report(&self, session: &Session, built: &Built, request: &BuildRequest) -> Result<(), Failure> {
        let Some(image) = &built.image else { return Ok(()) };
        // Pushing may have compressed its layers: another manifest of the same image.
        let now = match request.tags.first() {
            Some(tag) => Some(session.engine()?.image(&tag.to_string())?),
            None => None,
        };
        let image = now.as_ref().filter(|now| now.id == image.id).unwrap_or(image);
        let write = |path: &str, text: String| {
            fs::write(path, text).map_err(|e| Failure::io(format!("write {path}"), &e))
        };
        if let Some(path) = &self.iidfile {
            write(path, identity(image))?;
        }
        if let Some(path) = &self.metadata_file {
            let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
            let document = serde_json::json!({
                "containerimage.config.digest": image.id.to_string(),
                "containerimage.digest": image.digest().to_string(),
                "containerimage.descriptor": session.engine()?.image_descriptor(image)?,
                "image.name": names.join(","),
            });
            write(path, format!("{document:#}\n"))?;
        }
        Ok(())
    }
}

/// What finds the image again: its id, or of an index the digest.
fn identity(image: &cata_engine::images::Image) -> String {
    if image.index.is_some() { image.digest().to_string() } else { image.id.to_string() }
}

/// A context from afar, as a step of its own.
fn fetch(
    session: &Session,
    address: &str,
    request: &BuildRequest,
    screen: &Screen,
) -> Result<RemoteContext, Failure> {
    // Steps of the build itself count from 1.
    let step = 0;
    let start = Instant::now();
    screen.event(BuildEvent::Begin { step, title: format!("[internal] load {address}") });
    let say = |text: &[u8]| screen.event(BuildEvent::Line { step, text });
    let keep_git = request.keeps_git();
    let agent = request.ssh.get("default").map(std::path::PathBuf::as_path);
    let keys = Keys { agent, secrets: &request.secrets };
    let fetched = session.engine()?.build_remote(address, keep_git, keys, &say);
    let error = fetched.as_ref().err().map(ToString::to_string);
    let took = start.elapsed();
    screen.event(BuildEvent::End { step, cached: false, took, error, cancelled: false });
    Ok(fetched?)
}
