//! `build`: from a Dockerfile to an image.
//!
//! The build room decides (language, graph, keys), this module performs: stages side by side
//! ([`solve`]), each step a layer diffed from its overlay upper directory, kept in [`cache`] under a key that
//! says all that its result depends on. RUN is a container like any other ([`run`]); COPY writes into an
//! overlay that is mounted nowhere ([`overlay`], [`copy`]). [`finish`] makes the image.

mod agent;
mod ahead;
mod attest;
pub(crate) mod cache;
mod copy;
mod error;
mod finish;
mod git;
mod layouts;
mod mounts;
mod outline;
mod output;
mod overlay;
mod prune;
mod remote;
mod request;
mod run;
mod solve;
mod sources;
mod steps;
mod transfer;
mod users;

use std::sync::Arc;
use std::time::Instant;

pub use agent::KeyAgent;
pub use cache::Shared;
pub use cata_image::Algorithm;
pub use error::BuildError;
pub use outline::{Asked, Outline, OutlineArg, OutlineStage, outline};
pub use output::Unpacked;
pub use prune::{CacheEntry, CacheFilter, Keep, PruneRequest, Pruned};
pub use remote::{Keys, RemoteContext};
pub use request::{
    AllowDevices, Annotation, AnnotationOf, BuildEvent, BuildProgress, BuildRequest, Built, CachePlace,
    CacheTarget, Context, DockerfileText, ImageOptions, NamedContext, ProvenanceMode, Secret,
};
pub use solve::Snapshot;

pub use cata_build::source::{GitSource, is_remote};

use cata_build::graph::{Given, Graph};
use cata_spec::Platform;

use crate::engine::Engine;
use crate::error::{Error, Result};

fn language(request: &BuildRequest, error: &cata_build::Error) -> Error {
    Error::Build(Box::new(BuildError::language(error, &request.dockerfile.name, &request.dockerfile.text)))
}

fn given(request: &BuildRequest, platform: Option<&String>) -> Result<Given> {
    let host = Platform::host();
    let platform = match platform {
        Some(text) => crate::image::parse_platform(text)?,
        None => host.clone(),
    };
    Ok(Given {
        args: request.args.clone(),
        target_platform: platform.to_string(),
        build_platform: host.to_string(),
        target: request.target.clone(),
    })
}

/// What of a request cannot be together.
fn refuse(request: &BuildRequest) -> Result<()> {
    let output = &request.output;
    let index = request.is_index();
    let said = |of| output.annotations.iter().any(|note| note.of == of);
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if !index && (said(AnnotationOf::Index) || said(AnnotationOf::ManifestDescriptor)) {
        return invalid("annotations of an index need one: several platforms, or something attested");
    }
    if output.docker_types && !output.annotations.is_empty() {
        return invalid("Docker's media types have no annotations: leave oci-mediatypes=false out");
    }
    if output.docker_types && output.is_attested() {
        return invalid("Docker's media types have no attestations: leave oci-mediatypes=false out");
    }
    if output.rewrite_timestamp == Some(true) && request.epoch.is_none() {
        return invalid("rewrite-timestamp=true needs SOURCE_DATE_EPOCH, as a variable or a --build-arg");
    }
    if output.rewrite_timestamp == Some(false) && request.epoch.is_some() {
        return invalid(
            "rewrite-timestamp=false: with SOURCE_DATE_EPOCH no file of a layer is younger than that",
        );
    }
    Ok(())
}

fn parse(request: &BuildRequest) -> Result<cata_build::Dockerfile> {
    cata_build::parse(&request.dockerfile.text).map_err(|error| language(request, &error))
}

fn graph(request: &BuildRequest, file: &cata_build::Dockerfile, given: &Given) -> Result<Graph> {
    Graph::new(file, given).map_err(|error| language(request, &error))
}

/// Every platform once, in the order they were asked for; one that is the host's if none was.
fn plans(request: &BuildRequest, file: &cata_build::Dockerfile) -> Result<Vec<(Given, Graph)>> {
    let asked: Vec<Option<&String>> =
        if request.platforms.is_empty() { vec![None] } else { request.platforms.iter().map(Some).collect() };
    let mut plans: Vec<(Given, Graph)> = Vec::with_capacity(asked.len());
    for platform in asked {
        let given = given(request, platform)?;
        if plans.iter().all(|(known, _)| known.target_platform != given.target_platform) {
            let graph = graph(request, file, &given)?;
            plans.push((given, graph));
        }
    }
    Ok(plans)
}

/// All platforms at once; of several failures the one that made the others stop.
fn solve(solvers: &[solve::Solver<'_>]) -> std::result::Result<Vec<Arc<solve::Solved>>, BuildError> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            solvers.iter().skip(1).map(|solver| scope.spawn(move || solver.solve_all())).collect();
        let first = solvers.iter().take(1).map(solve::Solver::solve_all);
        let mut results: Vec<_> = first.collect();
        results.extend(running.into_iter().map(|thread| {
            let died = |_| Err(BuildError::new(crate::error::Kind::Internal, "a building thread died"));
            thread.join().unwrap_or_else(died)
        }));
        results
    });
    let failed = |own: bool| results.iter().find_map(|r| r.as_ref().err().filter(|e| !(own && e.cancelled)));
    match failed(true).or_else(|| failed(false)) {
        Some(error) => Err(error.clone()),
        None => Ok(results.into_iter().flatten().collect()),
    }
}

impl Engine {
    /// Builds.
    ///
    /// # Errors
    /// [`Error::Build`]: a fault in the Dockerfile, a step that failed, no space.
    pub fn build(&self, request: &BuildRequest, progress: &dyn BuildProgress) -> Result<Built> {
        let start = Instant::now();
        let (request, _taken) = layouts::take(self, request)?;
        let request = &*request;
        refuse(request)?;
        let file = parse(request)?;
        let plans = plans(request, &file)?;
        let settings = outline::settings(request, &file)?;
        if settings.error {
            // What can be told without its base images is told before anything is made.
            outline::refuse(&settings, &outline(request)?.warnings)?;
        }
        let failed = |error: BuildError| Error::Build(Box::new(error));
        // Of a build that was killed while it wrote or compressed layers.
        self.images.clear_leftovers().map_err(|error| crate::image::image_error(error.into()))?;
        // Whatever a step finds in the store stays there until the image names it.
        let _images = self.image_lease()?;
        let (cache, lease) = cache::Cache::open(self)?;
        let common = solve::Common::new(&cache, request).map_err(failed)?;
        let solvers: Vec<solve::Solver<'_>> = plans
            .iter()
            .map(|(given, graph)| {
                solve::Solver::new(self, request, graph, given, &cache, (progress, &common))
            })
            .collect();
        let mut notes = transfer::import_all(&solvers);
        let solved = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Nobody waits for it, and what is not sealed now is sealed by a later build.
                let _ = cache.seal_older(std::time::Duration::from_secs(45));
            });
            solve(&solvers)
        });
        common.save();
        let solved = solved.map_err(failed)?;
        let found = solvers.iter().flat_map(|solver| solver.warnings(&file)).collect();
        let found = outline::wanted(&settings, found);
        outline::refuse(&settings, &found)?;
        let mut warnings: Vec<String> =
            found.iter().map(|w| format!("{:?}: {} (line {})", w.rule, w.message, w.line)).collect();
        let image =
            if request.store { Some(finish::image(&solvers, &solved).map_err(failed)?) } else { None };
        if request.store {
            request.tags.iter().for_each(|name| self.tell_named("tag", name));
        }
        transfer::export_all(&solvers, &solved, &mut notes).map_err(failed)?;
        warnings.append(&mut notes);
        let unused = solvers.first().map(solve::Solver::unused_args).unwrap_or_default();
        if !unused.is_empty() {
            warnings
                .push(format!("[Warning] One or more build-args [{}] were not consumed", unused.join(" ")));
        }
        let counts = solvers.iter().map(solve::Solver::counts);
        let (steps, cached) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let roots = plans
            .iter()
            .zip(&solved)
            .map(|((given, _), solved)| (given.target_platform.clone(), solved.snapshot.clone()));
        Ok(Built {
            image,
            roots: roots.collect(),
            steps,
            cached,
            warnings,
            took: start.elapsed(),
            _lease: lease,
        })
    }
}
