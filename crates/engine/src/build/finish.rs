//! The end of a build: layers become the store's, and an image of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cata_build::graph::Graph;
use cata_build::key::Key;
use cata_image::{Captured, CommitRequest, Image, IndexRequest, Recompress};
use cata_spec::image::{Descriptor, History, ImageConfig};
use cata_spec::{Digest, Platform};
use rustix::fs::{AtFlags, Timespec, Timestamps};

use super::BuildError;
use super::cache::StepRecord;
use super::request::{AnnotationOf, ImageOptions};
use super::solve::{Layer, Solved, Solver};
use crate::engine::Engine;
use crate::error::Kind;

/// The time of what is made: now, or the one that was asked for.
pub(super) fn now(epoch: Option<i64>) -> String {
    let at = match epoch {
        Some(seconds) => UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        None => SystemTime::now(),
    };
    cata_image::timestamp(at)
}

/// Nothing in a layer is younger than this: `SOURCE_DATE_EPOCH`.
pub(super) fn clamp_times(upper: &Path, epoch: i64) -> Result<(), BuildError> {
    let mut waiting = vec![upper.to_owned()];
    let stamp = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    while let Some(dir) = waiting.pop() {
        let io = |errno: rustix::io::Errno| BuildError::io("set times in", &dir, errno);
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&dir, flags, rustix::fs::Mode::empty()).map_err(io)?;
        for entry in rustix::fs::Dir::read_from(&fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            if stat.st_mtime > epoch || (stat.st_mtime == epoch && stat.st_mtime_nsec > 0) {
                rustix::fs::utimensat(&fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            }
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
                waiting.push(dir.join(name));
            }
        }
    }
    Ok(())
}

/// Makes and names the image, or of several an index.
pub(super) fn image(solvers: &[Solver<'_>], solved: &[Arc<Solved>]) -> Result<Image, BuildError> {
    let start = Instant::now();
    let Some(solver) = solvers.first() else {
        return Err(BuildError::new(Kind::Internal, "no platform"));
    };
    if solver.is_cancelled() {
        return Err(BuildError::cancelled());
    }
    let number = solver.begin("exporting to image");
    let made = make_all(solvers, solved);
    solver.end(number, false, start, made.as_ref().err());
    made
}

fn make_all(solvers: &[Solver<'_>], solved: &[Arc<Solved>]) -> Result<Image, BuildError> {
    let output = solvers.first().map(|solver| &solver.request.output);
    let output = output.ok_or_else(|| BuildError::new(Kind::Internal, "no platform"))?;
    let mut requests = Vec::with_capacity(solvers.len());
    for (solver, solved) in solvers.iter().zip(solved) {
        requests.push((solver, make(solver, solved)?));
    }
    if let [(solver, request)] = requests.as_slice()
        && !solver.request.is_index()
    {
        return Ok(cata_image::commit(&solver.engine.images, request)?);
    }
    let annotations = annotations(output, AnnotationOf::Index, None)?;
    let mut index = IndexRequest { annotations, docker: output.docker_types, ..IndexRequest::default() };
    let mut attestations = Vec::new();
    for ((solver, request), solved) in requests.iter().zip(solved) {
        let mut member = cata_image::commit_member(&solver.engine.images, request)?;
        let platform = solver.platform.as_deref();
        member.descriptor.annotations =
            self::annotations(output, AnnotationOf::ManifestDescriptor, platform)?;
        attestations.extend(super::attest::attest(solver, solved, &member.descriptor)?);
        index.names.clone_from(&request.names);
        index.manifests.push(member.descriptor);
    }
    index.manifests.append(&mut attestations);
    let images = requests.first().map(|(solver, _)| &solver.engine.images);
    let images = images.ok_or_else(|| BuildError::new(Kind::Internal, "no platform"))?;
    Ok(cata_image::commit_index(images, &index)?)
}

fn make(solver: &Solver<'_>, solved: &Arc<Solved>) -> Result<CommitRequest, BuildError> {
    let (engine, request, graph) = (solver.engine, solver.request, solver.graph);
    let layers = layers(solver, &solved.snapshot.layers)?;
    let layers = compressed(engine, &request.output, layers)?;
    let mut config = base_config(solver, graph, solved)?;
    config.config = solved.config.clone();
    config.config.labels.extend(request.labels.clone());
    config.author.clone_from(&solved.author);
    let mut last = config.created.clone().filter(|_| solved.image.is_some());
    let first = || now(request.epoch);
    for line in &solved.history {
        let created = line
            .created
            .clone()
            .or_else(|| request.epoch.map(|epoch| now(Some(epoch))))
            .or_else(|| last.clone());
        let created = created.unwrap_or_else(first);
        config.history.push(History {
            created: Some(created.clone()),
            created_by: Some(line.created_by.clone()),
            comment: Some("catamaran".to_owned()),
            empty_layer: !line.layer,
            ..History::default()
        });
        last = Some(created);
    }
    config.created = Some(last.unwrap_or_else(first));
    config.build_cache = super::transfer::inline(solver, solved)?;
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|(diff_id, _)| *diff_id).collect();
    Ok(CommitRequest {
        config,
        layers: layers.into_iter().map(|(_, descriptor)| descriptor).collect(),
        names: request.tags.clone(),
        annotations: annotations(&request.output, AnnotationOf::Manifest, solver.platform.as_deref())?,
        docker: request.output.docker_types,
    })
}

/// The layers in the compression that was asked for.
fn compressed(
    engine: &Engine,
    output: &ImageOptions,
    layers: Vec<(Digest, Descriptor)>,
) -> Result<Vec<(Digest, Descriptor)>, BuildError> {
    // What is attested is attested of the manifest, which names the layers as they are sent.
    let attested = output.is_attested().then_some(cata_image::Algorithm::GZIP);
    let Some(to) = output.compression.or(attested) else { return Ok(layers) };
    let threads = usize::try_from(engine.host.cpus).unwrap_or(1);
    let how = Recompress { to, force: output.force_compression, threads };
    let (diff_ids, descriptors): (Vec<Digest>, Vec<Descriptor>) = layers.into_iter().unzip();
    Ok(diff_ids.into_iter().zip(engine.images.recompress(&descriptors, &how)?).collect())
}

/// What is noted of a thing, for a platform.
fn annotations(
    output: &ImageOptions,
    of: AnnotationOf,
    platform: Option<&str>,
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut found = BTreeMap::new();
    for note in output.annotations.iter().filter(|note| note.of == of) {
        let fits = match &note.platform {
            None => true,
            Some(wanted) => {
                let here = match platform {
                    Some(platform) => crate::image::parse_platform(platform)?,
                    None => Platform::host(),
                };
                crate::image::parse_platform(wanted)? == here
            }
        };
        if fits {
            found.insert(note.key.clone(), note.value.clone());
        }
    }
    Ok(found)
}

/// What the image at the bottom says, or what `scratch` does.
fn base_config(solver: &Solver<'_>, graph: &Graph, solved: &Solved) -> Result<ImageConfig, BuildError> {
    if let Some(image) = &solved.image {
        let mut config = image.config.clone();
        config.comment = None;
        config.docker_version = None;
        return Ok(config);
    }
    let stage = &graph.stages[graph.target];
    let platform = match stage.platform.as_ref().or(solver.platform.as_ref()) {
        Some(text) => crate::image::parse_platform(text)?,
        None => Platform::host(),
    };
    Ok(ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageConfig::default()
    })
}

/// Every layer as the manifest names it; those of steps are captured on all cores.
fn layers(solver: &Solver<'_>, layers: &[Layer]) -> Result<Vec<(Digest, Descriptor)>, BuildError> {
    let (engine, cache) = (solver.engine, solver.cache);
    let steps: Vec<(&Key, &Arc<StepRecord>)> = layers
        .iter()
        .filter_map(|layer| match layer {
            Layer::Step(key, record) => Some((key, record)),
            Layer::Image(..) => None,
        })
        .collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Captured)>> = Mutex::default();
    let failure: Mutex<Option<BuildError>> = Mutex::default();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((key, record)) = steps.get(at) else { return };
            match cache.capture(&engine.images, key, StepRecord::clone(record), solver.ahead.take(key)) {
                Ok((_, Some(captured))) => {
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, captured));
                }
                Ok((_, None)) => {}
                Err(error) => {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    let threads = usize::try_from(engine.host.cpus).unwrap_or(1).min(steps.len());
    if threads < 2 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut captured = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    captured.sort_by_key(|(at, _)| *at);
    let mut captured = captured.into_iter().map(|(_, captured)| (captured.diff_id, captured.descriptor));
    let mut all = Vec::with_capacity(layers.len());
    for layer in layers {
        match layer {
            Layer::Step(..) => all.extend(captured.next()),
            Layer::Image(image, at) => {
                let descriptor = image.manifest.layers.get(*at).cloned();
                all.extend(image.diff_ids().get(*at).copied().zip(descriptor));
            }
        }
    }
    Ok(all)
}
