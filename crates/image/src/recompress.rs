//! Layers in another compression than they have in the store.
//!
//! `build`, `commit` and `load` keep plain layers as they are, because that is fast and most images are never pushed:
//! `push` compresses them then. The image id does not change (it is the configuration's digest), only manifest
//! and blobs do. What a layer became is noted in `<root>/compressed/`, so that it is compressed once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cata_spec::Digest;
use cata_spec::image::{Descriptor, Index, Manifest, media_type};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::commit::add_index;
use crate::compress::{Algorithm, compress};
use crate::error::{Error, StoreError};
use crate::layer::compression::Decoder;
use crate::layer::unpack::CHUNK;
use crate::request::Image;
use crate::store::{Hasher, NewImage, Store};

/// What layers are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompress {
    /// How they are compressed.
    pub to: Algorithm,
    /// Those too that are compressed in another way.
    pub force: bool,
    /// Cores to use.
    pub threads: usize,
}

/// The image with every layer compressed, or an index with every image so; as it was if they all are. An index that
/// is attested is left alone: what is said of it is said of it as it is.
pub(crate) fn for_push(store: &Store, image: Image) -> Result<Image, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let how = Recompress { to: Algorithm::GZIP, force: false, threads };
    let Some(top) = &image.index else {
        let Some(manifest) = recompressed(store, &image.manifest, &how)? else { return Ok(image) };
        let (manifest_digest, manifest_size) = add_manifest(store, &manifest)?;
        let new = NewImage {
            media_type: manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned()),
            manifest_digest,
            manifest_size,
            id: image.id,
            others: Vec::new(),
            size: image.size,
            platform: Some(image.platform()),
            repo_digest: None,
        };
        store.replace_manifest(&image.manifest_digest, &new)?;
        return Ok(Image { manifest, manifest_digest, ..image });
    };
    let members = store.members(&image)?;
    if members.iter().any(crate::request::Member::is_attestation) {
        return Ok(image);
    }
    let mut index: Index = store.index(top)?;
    let mut changed: BTreeMap<Digest, (Digest, Manifest)> = BTreeMap::new();
    for (member, listed) in members.iter().zip(&mut index.manifests) {
        let Some(manifest) = &member.manifest else { continue };
        if let Some(manifest) = recompressed(store, manifest, &how)? {
            (listed.digest, listed.size) = add_manifest(store, &manifest)?;
            changed.insert(member.descriptor.digest, (listed.digest, manifest));
        }
    }
    if changed.is_empty() {
        return Ok(image);
    }
    let new = add_index(store, &index)?;
    store.replace_manifest(&top.digest, &new)?;
    let top = Descriptor::new(&new.media_type, new.manifest_digest, new.manifest_size);
    Ok(match changed.remove(&image.manifest_digest) {
        Some((manifest_digest, manifest)) => Image { manifest, manifest_digest, index: Some(top), ..image },
        None => Image { index: Some(top), ..image },
    })
}

fn add_manifest(store: &Store, manifest: &Manifest) -> Result<(Digest, u64), Error> {
    let path = store.content();
    let bytes = serde_json::to_vec(manifest).map_err(|e| StoreError::damaged(&path, e))?;
    Ok((store.add_blob(&bytes)?, bytes.len() as u64))
}

/// `None`: it is as it should be.
fn recompressed(store: &Store, manifest: &Manifest, how: &Recompress) -> Result<Option<Manifest>, Error> {
    let layers = store.recompress(&manifest.layers, how)?;
    Ok((layers != manifest.layers).then(|| Manifest { layers, ..manifest.clone() }))
}

impl Store {
    /// The layers, compressed as they should be: plain ones, and with `force` all. Several at once.
    ///
    /// # Errors
    /// A blob is missing or damaged; no space.
    pub fn recompress(&self, layers: &[Descriptor], how: &Recompress) -> Result<Vec<Descriptor>, Error> {
        let _lease = self.lease()?;
        let mut waiting: Vec<usize> = (0..layers.len())
            .filter(|at| layers.get(*at).is_some_and(|layer| is_to_change(layer, how)))
            .collect();
        // The largest first, for that one takes longest.
        waiting.sort_by_key(|at| std::cmp::Reverse(layers.get(*at).map_or(0, |layer| layer.size)));
        let done: Mutex<BTreeMap<usize, Descriptor>> = Mutex::default();
        let failure: Mutex<Option<Error>> = Mutex::default();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(at) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(layer) = layers.get(*at) else { return };
                match self.one(layer, how) {
                    Ok(layer) => drop(done.lock().unwrap_or_else(PoisonError::into_inner).insert(*at, layer)),
                    Err(error) => {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..how.threads.min(waiting.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let layers = layers.iter().enumerate();
        Ok(layers.map(|(at, layer)| done.remove(&at).unwrap_or_else(|| layer.clone())).collect())
    }

    /// One layer; as it was made before, if that is still there.
    fn one(&self, layer: &Descriptor, how: &Recompress) -> Result<Descriptor, Error> {
        let made = |digest, size| Descriptor {
            media_type: kind(&layer.media_type, how.to),
            digest,
            size,
            ..layer.clone()
        };
        let note = self.note(&layer.digest, how.to);
        if let Some((digest, size)) = std::fs::read_to_string(&note).ok().as_deref().and_then(noted)
            && self.open_blob(&digest).is_ok_and(|(_, there)| there == size)
        {
            return Ok(made(digest, size));
        }
        let (blob, _) = self.open_blob(&layer.digest)?;
        let reading = |e: io::Error| StoreError::io("reading", &self.blob_path(&layer.digest), e);
        let mut from = Decoder::new(BufReader::with_capacity(CHUNK, blob)).map_err(reading)?;
        let (file, path) = self.ingest_file("compress")?;
        let mut to = Hashed { file, hasher: Hasher::new(), size: 0 };
        let done = compress(&mut from, &mut to, how.to, how.threads)
            .map_err(|e| StoreError::io("writing", &path, e))
            .and_then(|()| {
                let (digest, size) = (to.hasher.finish(), to.size);
                self.publish_blob(&to.file, &path, &digest)?;
                Ok((digest, size))
            });
        if done.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        let (digest, size) = done?;
        // Without it, it is compressed again.
        let _ = std::fs::create_dir_all(self.notes_dir())
            .and_then(|()| std::fs::write(&note, format!("{digest} {size}")));
        Ok(made(digest, size))
    }

    /// Where it is noted what a blob became.
    pub(crate) fn note(&self, digest: &Digest, to: Algorithm) -> PathBuf {
        let how = match to {
            Algorithm::Plain => "plain".to_owned(),
            Algorithm::Gzip(level) => format!("gzip-{level}"),
            Algorithm::Zstd(level) => format!("zstd-{level}"),
        };
        self.notes_dir().join(format!("{}.{how}", digest.hex()))
    }

    /// Forgets what became of blobs, where that is not there any more. Nobody else may be adding.
    pub(crate) fn sweep_notes(&self) {
        let Ok(entries) = std::fs::read_dir(self.notes_dir()) else { return };
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if noted(&text).is_none_or(|(digest, _)| !self.has_blob(&digest)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn noted(text: &str) -> Option<(Digest, u64)> {
    let (digest, size) = text.split_once(' ')?;
    Some((Digest::parse(digest).ok()?, size.parse().ok()?))
}

fn compression(kind: &str) -> Option<&'static str> {
    match kind {
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some("plain"),
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some("gzip"),
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Some("zstd"),
        _ => None,
    }
}

/// Whether a layer is to be made anew. Which level made it cannot be told: one of the right kind stays, but what is
/// forced to a kind is made at the level that was asked for only if it is of another.
fn is_to_change(layer: &Descriptor, how: &Recompress) -> bool {
    let wanted = match how.to {
        Algorithm::Plain => "plain",
        Algorithm::Gzip(_) => "gzip",
        Algorithm::Zstd(_) => "zstd",
    };
    match compression(&layer.media_type) {
        Some(is) if is == wanted => false,
        Some("plain") => true,
        Some(_) => how.force,
        // Not a layer that is known.
        None => false,
    }
}

fn kind(old: &str, to: Algorithm) -> String {
    let docker = old.starts_with("application/vnd.docker.");
    let kind = match (to, docker) {
        (Algorithm::Plain, false) => media_type::OCI_LAYER,
        (Algorithm::Gzip(_), false) => media_type::OCI_LAYER_GZIP,
        (Algorithm::Zstd(_), false) => media_type::OCI_LAYER_ZSTD,
        (Algorithm::Plain, true) => media_type::DOCKER_LAYER,
        (Algorithm::Gzip(_), true) => media_type::DOCKER_LAYER_GZIP,
        (Algorithm::Zstd(_), true) => media_type::DOCKER_LAYER_ZSTD,
    };
    kind.to_owned()
}

/// Compresses into a file what comes in pieces, hashing what it writes.
pub(crate) struct Gzip {
    encoder: GzEncoder<Hashed>,
}

struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gzip {
    pub(crate) fn new(file: File) -> Self {
        let to = Hashed { file, hasher: Hasher::new(), size: 0 };
        Self { encoder: GzEncoder::new(to, Compression::new(4)) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.encoder.write_all(bytes)
    }

    /// The file, its digest and its size.
    pub(crate) fn finish(self) -> io::Result<(File, Digest, u64)> {
        let done = self.encoder.finish()?;
        Ok((done.file, done.hasher.finish(), done.size))
    }
}
