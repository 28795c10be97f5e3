//! `--cache-from` and `--cache-to`: steps that were made elsewhere, and steps for elsewhere.
//!
//! A cache is an image like any other, whose configuration says besides which step made which layer, and
//! upon which other (`catamaran.buildcache.v1`). So registries, archives and the store handle it without knowing what it is, and
//! an image that was built can carry its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cata_image::{CommitRequest, Image, PullRequest, Silent};
use cata_spec::image::ImageConfig;
use cata_spec::{Digest, Platform};
use serde::{Deserialize, Serialize};

use super::BuildError;
use super::cache::{Cache, CapturedLayer, StepRecord};
use super::request::{CachePlace, CacheTarget};
use super::solve::{Layer, Solved, Solver};
use crate::engine::Engine;
use crate::error::Kind;

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Document {
    /// Those below before those above.
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    /// All that its result depends on.
    key: String,
    title: String,
    /// RFC 3339.
    created: String,
    /// The layer it made; `None`: it changed nothing.
    layer: Option<CapturedLayer>,
    /// The layer of another step that it stands upon; `None`: an image's, or nothing.
    upon: Option<Digest>,
    /// Bytes of its files.
    size: u64,
}

/// Takes over what the places have. One that cannot be read costs time, not the build: it is told in a word.
pub(super) fn import_all(solvers: &[Solver<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(solver) = solvers.first() else { return notes };
    for place in &solver.request.cache_from {
        let number = solver.begin(&format!("importing cache from {}", named(place)));
        let start = std::time::Instant::now();
        let mut done = import(solver.engine, solver.cache, place, None);
        // The member of an index that was built for another platform carries its own.
        for platform in solvers.iter().filter_map(|solver| solver.platform.as_deref()) {
            let taken = import(solver.engine, solver.cache, place, Some(platform));
            done = done.or(taken);
        }
        solver.end(number, false, start, None);
        if let Err(error) = done {
            notes.push(format!("the cache of {} is not used: {}", named(place), error.message));
        }
    }
    notes
}

fn named(place: &CachePlace) -> String {
    match place {
        CachePlace::Registry(reference) => reference.familiar(),
        CachePlace::Local(path) => path.display().to_string(),
        CachePlace::Inline => "the image".to_owned(),
    }
}

fn import(
    engine: &Engine,
    cache: &Cache,
    place: &CachePlace,
    platform: Option<&str>,
) -> Result<(), BuildError> {
    let known: BTreeSet<Digest> = engine.image_list()?.into_iter().map(|image| image.digest()).collect();
    let image = fetch(engine, place, platform)?;
    let taken = take(engine, cache, &image);
    // Only its layers are wanted: an image that came for them goes again.
    if !known.contains(&image.digest()) {
        let _ = engine.image_remove(&image.digest().to_string(), cata_image::RemoveOptions::default());
    }
    taken
}

/// By digest, so that no name of this engine's moves.
fn fetch(engine: &Engine, place: &CachePlace, platform: Option<&str>) -> Result<Image, BuildError> {
    let failed = |error: cata_image::Error| BuildError::from(crate::image::image_error(error));
    match place {
        CachePlace::Registry(reference) => {
            let config = engine.registries()?;
            let digest = cata_image::digest_of(&config, reference).map_err(failed)?;
            let digest = digest.ok_or_else(|| {
                BuildError::new(
                    Kind::NotFound,
                    format!("the registry does not know {}", reference.familiar()),
                )
            })?;
            let platform = platform.map(crate::image::parse_platform).transpose()?;
            let pull = PullRequest { reference: reference.with_digest(digest), platform };
            cata_image::pull(&engine.images, &config, &pull, &Silent)
                .map(|pulled| pulled.image)
                .map_err(failed)
        }
        CachePlace::Local(dir) => {
            let loaded = cata_image::read_layout(&engine.images, dir, &Silent).map_err(failed)?;
            let nothing = || BuildError::new(Kind::NotFound, "there is no cache in it".to_owned());
            let id = loaded.first().ok_or_else(nothing)?.id;
            Ok(engine.image_of(&id.to_string(), platform)?)
        }
        CachePlace::Inline => Err(BuildError::new(
            Kind::InvalidArgument,
            "an inline cache comes with the image: name the image".to_owned(),
        )),
    }
}

fn take(engine: &Engine, cache: &Cache, image: &Image) -> Result<(), BuildError> {
    let nothing = || BuildError::new(Kind::NotFound, "it holds no cache of steps".to_owned());
    let value = image.config.build_cache.clone().ok_or_else(nothing)?;
    let document: Document = serde_json::from_value(value)
        .map_err(|e| BuildError::new(Kind::InvalidArgument, format!("what it says of its steps: {e}")))?;
    let theirs: BTreeSet<&Digest> = image.diff_ids().iter().collect();
    // What the layers are called here.
    let mut names: HashMap<Digest, String> = HashMap::new();
    for step in document.steps {
        let Some(key) = Digest::from_hex(&step.key) else { continue };
        let upon = match step.upon {
            None => None,
            Some(below) => match names.get(&below) {
                Some(name) => Some(name.clone()),
                None => continue,
            },
        };
        // A layer that did not come with the image is not taken on anybody's word.
        if step.layer.as_ref().is_some_and(|layer| !theirs.contains(&layer.diff_id)) {
            continue;
        }
        let record = match cache.record(&key) {
            Some(own) => own,
            None => {
                let record = StepRecord {
                    title: step.title,
                    created: step.created,
                    took: 0,
                    layer: None,
                    upon,
                    size: step.size,
                    boot: String::new(),
                    synced: true,
                    captured: step.layer.clone(),
                };
                cache.adopt(&engine.images, &key, record)?
            }
        };
        if let (Some(layer), Some(own), Some(name)) = (step.layer, record.captured, record.layer)
            && layer.diff_id == own.diff_id
        {
            names.insert(layer.diff_id, name);
        }
    }
    Ok(())
}

/// Brings the steps to where they were asked to be.
pub(super) fn export_all(
    solvers: &[Solver<'_>],
    solved: &[Arc<Solved>],
    notes: &mut Vec<String>,
) -> Result<(), BuildError> {
    let Some(solver) = solvers.first() else { return Ok(()) };
    for target in &solver.request.cache_to {
        if target.place == CachePlace::Inline {
            continue;
        }
        let number = solver.begin(&format!("exporting cache to {}", named(&target.place)));
        let start = std::time::Instant::now();
        let done = export(solvers, solved, target);
        solver.end(number, false, start, done.as_ref().err());
        match done {
            Err(error) if target.forgiving => {
                notes.push(format!("the cache did not go to {}: {}", named(&target.place), error.message));
            }
            done => done?,
        }
    }
    Ok(())
}

fn export(solvers: &[Solver<'_>], solved: &[Arc<Solved>], target: &CacheTarget) -> Result<(), BuildError> {
    let Some(engine) = solvers.first().map(|solver| solver.engine) else { return Ok(()) };
    let known: BTreeSet<Digest> = engine.image_list()?.into_iter().map(|image| image.digest()).collect();
    let (mut document, mut layers): (Document, Layers) = Default::default();
    for (solver, solved) in solvers.iter().zip(solved) {
        let (more, below) = self::document(solver, solved, target.all)?;
        for step in more.steps {
            if !document.steps.contains(&step) {
                document.steps.push(step);
            }
        }
        for layer in below {
            if !layers.iter().any(|(diff_id, _)| *diff_id == layer.0) {
                layers.push(layer);
            }
        }
    }
    let platform = Platform::host();
    let mut config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        build_cache: Some(value(&document)?),
        ..ImageConfig::default()
    };
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|(diff_id, _)| *diff_id).collect();
    let layers = layers.into_iter().map(|(_, descriptor)| descriptor).collect();
    let commit =
        CommitRequest { config, layers, names: Vec::new(), annotations: Default::default(), docker: false };
    let failed = |error: cata_image::Error| BuildError::from(crate::image::image_error(error));
    let image = cata_image::commit(&engine.images, &commit).map_err(failed)?;
    let (id, digest) = (image.id, image.digest());
    let sent = match &target.place {
        CachePlace::Registry(reference) => {
            let registries = engine.registries()?;
            cata_image::push_as(&engine.images, &registries, image, reference, &Silent).map(|_| ())
        }
        CachePlace::Local(dir) => cata_image::write_layout(&engine.images, &image, dir),
        CachePlace::Inline => Ok(()),
    };
    if !known.contains(&digest) {
        // Pushing may have made another manifest of it.
        let _ = engine.image_remove(&id.to_string(), cata_image::RemoveOptions::default());
    }
    sent.map_err(failed)
}

/// What the image that is built says of its own layers, if it is to carry its cache.
pub(super) fn inline(solver: &Solver<'_>, solved: &Solved) -> Result<Option<serde_json::Value>, BuildError> {
    if !solver.request.carries_cache() {
        return Ok(None);
    }
    value(&document(solver, solved, false)?.0).map(Some)
}

fn value(document: &Document) -> Result<serde_json::Value, BuildError> {
    serde_json::to_value(document).map_err(|e| BuildError::new(Kind::Internal, e.to_string()))
}

type Layers = Vec<(Digest, cata_spec::image::Descriptor)>;

/// The steps with their layers: those whose layers the image has and those that made none, or all.
fn document(solver: &Solver<'_>, solved: &Solved, all: bool) -> Result<(Document, Layers), BuildError> {
    let of_image: BTreeSet<&str> = solved
        .snapshot
        .layers
        .iter()
        .filter_map(|layer| match layer {
            Layer::Step(_, record) => record.layer.as_deref(),
            Layer::Image(..) => None,
        })
        .collect();
    let mut digests: HashMap<String, Digest> = HashMap::new();
    let (mut document, mut layers): (Document, Layers) = Default::default();
    let mut seen = BTreeSet::new();
    for (key, record) in solver.used() {
        let wanted = all || record.layer.as_deref().is_none_or(|layer| of_image.contains(layer));
        if !wanted || !seen.insert(key) {
            continue;
        }
        let upon = match &record.upon {
            None => None,
            Some(below) => match digests.get(below) {
                Some(digest) => Some(*digest),
                None => continue,
            },
        };
        let name = record.layer.clone();
        let (record, captured) = solver.cache.capture(&solver.engine.images, &key, record, None)?;
        if let (Some(name), Some(captured)) = (name, captured) {
            digests.insert(name, captured.diff_id);
            if !layers.iter().any(|(diff_id, _)| *diff_id == captured.diff_id) {
                layers.push((captured.diff_id, captured.descriptor));
            }
        }
        document.steps.push(Step {
            key: key.hex(),
            title: record.title,
            created: record.created,
            layer: record.captured,
            upon,
            size: record.size,
        });
    }
    Ok((document, layers))
}
