//! `load`: images out of an archive, docker-archive or OCI layout, in one pass over the stream.
//!
//! What a file of the archive is for is said by a document that may come after it. So documents are kept in
//! memory, and whatever else looks like a layer is taken into the store as it passes by; what no document
//! names in the end is garbage and swept.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use cata_spec::image::{Descriptor, ImageConfig, Index, Manifest, ManifestDocument, media_type};
use cata_spec::{Digest, Platform, Reference};

use crate::archive::document::DockerImage;
use crate::archive::ingest::{self, Ingested, Plain};
use crate::commit::add_index_bytes;
use crate::error::{ArchiveError, Error, LayerError, StoreError};
use crate::layer::apply::normal;
use crate::layer::compression::{Compression, Decoder};
use crate::layer::header::{self, BLOCK, Kind};
use crate::layer::reader::Reader;
use crate::layer::unpack::CHUNK;
use crate::progress::{Event, Progress};
use crate::request::{Loaded, is_attestation};
use crate::store::{NewImage, Store, sha256, sync_dir};

/// Larger documents are refused.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// All documents of an archive together.
const DOCUMENTS_LIMIT: usize = 64 << 20;

/// Brings the images of an archive into the store. `source` is read once, from a pipe or a file, and may be
/// compressed as a whole.
///
/// # Errors
/// No image in it; something it names is missing or damaged; no space.
pub fn load(
    store: &Store,
    source: &mut (dyn Read + Send),
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Error> {
    bring(store, source, progress, true)
}

/// The same without the names that the archive gives them: none of the store's moves.
///
/// # Errors
/// As [`load`].
pub(crate) fn nameless(
    store: &Store,
    source: &mut (dyn Read + Send),
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Error> {
    bring(store, source, progress, false)
}

fn bring(
    store: &Store,
    source: &mut (dyn Read + Send),
    progress: &dyn Progress,
    named: bool,
) -> Result<Vec<Loaded>, Error> {
    store.clear_leftovers()?;
    let loaded = take_all(store, source, progress, named);
    if loaded.is_err() {
        // Whole layers of an archive that failed later. The lease is given back: they can be told from
        // those of others, unless somebody else is adding, and then the next `rmi` takes them.
        let _ = store.collect_garbage();
    }
    loaded
}

fn take_all(
    store: &Store,
    source: &mut (dyn Read + Send),
    progress: &dyn Progress,
    named: bool,
) -> Result<Vec<Loaded>, Error> {
    let _lease = store.lease()?;
    let input = Decoder::new(BufReader::with_capacity(CHUNK, source)).map_err(ArchiveError::Read)?;
    let mut archive = Archive {
        store,
        progress,
        documents: BTreeMap::new(),
        layers: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    archive.read(BufReader::with_capacity(CHUNK, input))?;
    let found = archive.images()?;
    let diff_ids: Vec<Digest> = archive.layers.values().map(|layer| layer.diff_id).collect();
    store.seal_layers(&diff_ids)?;
    sync_dir(&store.content().join("blobs/sha256"))?;
    let mut loaded: Vec<Loaded> = Vec::new();
    for (image, mut names) in found {
        if !named {
            names.clear();
        }
        store.add_image(&image, &names)?;
        loaded.push(Loaded { id: image.id, names });
    }
    Ok(loaded)
}

struct Archive<'s> {
    store: &'s Store,
    progress: &'s dyn Progress,
    /// JSON files by normal path.
    documents: BTreeMap<String, Vec<u8>>,
    /// Layers by normal path.
    layers: BTreeMap<String, Ingested>,
    /// Links by normal path: Docker once wrote a layer that occurs twice as a link to itself.
    links: BTreeMap<String, String>,
}

impl Archive<'_> {
    fn read(&mut self, input: impl BufRead) -> Result<(), Error> {
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next_entry().map_err(archive_error)? {
            let path = text(&normal(&entry.path, &entry.path)?)?;
            match entry.kind {
                Kind::File if entry.sparse.is_none() => self.file(path, entry.stored, &mut reader)?,
                Kind::SymLink => {
                    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                    let target = [dir.as_bytes(), b"/", &entry.link].concat();
                    self.links.insert(path, text(&normal(&target, &entry.path)?)?);
                }
                Kind::HardLink => {
                    self.links.insert(path, text(&normal(&entry.link, &entry.path)?)?);
                }
                _ => {}
            }
        }
        Ok(reader.drain().map_err(archive_error)?)
    }

    fn file<R: BufRead>(&mut self, path: String, size: u64, reader: &mut Reader<R>) -> Result<(), Error> {
        let mut start = Vec::new();
        take(reader, &mut start, BLOCK)?;
        if !(is_layer_path(&path) && looks_like_layer(&start)) {
            if !matches!(start.first(), Some(b'{' | b'[')) {
                // VERSION files and the like.
                return Ok(());
            }
            let held: usize = self.documents.values().map(Vec::len).sum();
            if size > DOCUMENT_LIMIT || held > DOCUMENTS_LIMIT {
                let reason = "larger than any honest document".to_owned();
                return Err(ArchiveError::Document { name: path, reason }.into());
            }
            take(reader, &mut start, usize::MAX)?;
            self.documents.insert(path, start);
            return Ok(());
        }
        if let Some(known) = self.known(&path) {
            self.progress.event(Event::Exists { digest: known.digest });
            self.layers.insert(path, known);
            return Ok(());
        }
        let mut start = Some(start);
        let layer = ingest::layer(self.store, Plain::Keep, || {
            let mut chunk = start.take().unwrap_or_default();
            chunk.reserve(CHUNK.saturating_sub(chunk.len()));
            take(reader, &mut chunk, CHUNK)?;
            Ok(chunk)
        })?;
        self.progress.event(Event::Done { digest: layer.digest });
        self.layers.insert(path, layer);
        Ok(())
    }

    /// A layer that is in the store, by the digest that its path claims: then the store's, verified once,
    /// is as good, whatever the archive holds.
    fn known(&self, path: &str) -> Option<Ingested> {
        let name = path.rsplit('/').next()?;
        let digest = Digest::from_hex(name.strip_suffix(".tar").unwrap_or(name))?;
        // Only for a plain layer do the blob's digest and the layer's coincide.
        self.store.trusted_layer(&digest)?;
        let (_, size) = self.store.open_blob(&digest).ok()?;
        Some(Ingested { digest, size, media_type: media_type::OCI_LAYER, diff_id: digest })
    }

    /// Every image of the archive with its names; documents are added to the store.
    fn images(&self) -> Result<Vec<(NewImage, Vec<Reference>)>, Error> {
        let mut found: Vec<(NewImage, Vec<Reference>)> = Vec::new();
        if let Some(bytes) = self.document("index.json") {
            let index: Index = parse("index.json", bytes)?;
            for descriptor in &index.manifests {
                let image = self.layout_image(descriptor)?;
                add(&mut found, image, layout_name(descriptor));
            }
        }
        if let Some(bytes) = self.document("manifest.json") {
            let images: Vec<DockerImage> = parse("manifest.json", bytes)?;
            for described in &images {
                let (id, config, document) = self.config(&described.config)?;
                let names = described.repo_tags.iter().flatten().map(|name| Reference::parse(name));
                let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
                if let Some((_, known)) =
                    found.iter_mut().find(|(image, _)| image.id == id || image.others.contains(&id))
                {
                    let new: Vec<Reference> =
                        names.into_iter().filter(|name| !known.contains(name)).collect();
                    known.extend(new);
                } else {
                    found.push((self.docker_image(described, id, &config, document)?, names));
                }
            }
        }
        if found.is_empty() { Err(ArchiveError::NoImage.into()) } else { Ok(found) }
    }

    fn document(&self, path: &str) -> Option<&Vec<u8>> {
        self.documents.get(self.followed(path))
    }

    fn layer(&self, path: &str) -> Option<&Ingested> {
        self.layers.get(self.followed(path))
    }

    fn followed<'p>(&'p self, mut path: &'p str) -> &'p str {
        for _ in 0..8 {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }

    fn config(&self, path: &str) -> Result<(Digest, ImageConfig, &[u8]), Error> {
        let wanted = text(&normal(path.as_bytes(), path.as_bytes())?)?;
        let bytes = self.document(&wanted).ok_or_else(|| ArchiveError::Missing(path.to_owned()))?;
        Ok((sha256(bytes), parse(path, bytes)?, bytes))
    }

    /// An image of a layout: its manifest is kept as it is.
    fn layout_image(&self, descriptor: &Descriptor) -> Result<NewImage, Error> {
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        let bytes = self.document(&name).ok_or_else(|| ArchiveError::Missing(name.clone()))?;
        verify(&name, &descriptor.digest, bytes)?;
        let unusable = |e: cata_spec::image::ManifestError| ArchiveError::Document {
            name: name.clone(),
            reason: e.to_string(),
        };
        let manifest = match ManifestDocument::parse(bytes, None).map_err(unusable)? {
            ManifestDocument::Image(manifest) => manifest,
            ManifestDocument::Index(index) => {
                let held =
                    |m: &Descriptor| self.document(&format!("blobs/sha256/{}", m.digest.hex())).is_some();
                if !index.manifests.is_empty() && index.manifests.iter().all(held) {
                    return self.layout_index(&index, bytes);
                }
                // Only what the archive really holds can be chosen.
                let unknown = Platform::default();
                let held: Vec<&Descriptor> = index
                    .manifests
                    .iter()
                    .filter(|m| self.document(&format!("blobs/sha256/{}", m.digest.hex())).is_some())
                    .collect();
                let at = Platform::host()
                    .choose(held.iter().map(|m| m.platform.as_ref().unwrap_or(&unknown)))
                    .ok_or_else(|| ArchiveError::Missing(format!("a manifest for {}", Platform::host())))?;
                return self.layout_image(held[at]);
            }
        };
        let path = format!("blobs/sha256/{}", manifest.config.digest.hex());
        let (id, config, document) = self.config(&path)?;
        verify(&path, &manifest.config.digest, document)?;
        let mut size = 0;
        for (at, layer) in manifest.layers.iter().enumerate() {
            let path = format!("blobs/sha256/{}", layer.digest.hex());
            let held = self.layer(&path).ok_or_else(|| ArchiveError::Missing(path.clone()))?;
            if held.digest != layer.digest {
                return Err(mismatch(&path, &layer.digest, &held.digest));
            }
            size += self.check_layer(&config, at, held)?;
        }
        complete(&path, &config, manifest.layers.len())?;
        self.store.add_blob(document)?;
        self.store.add_blob(bytes)?;
        Ok(NewImage {
            media_type: manifest.media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned()),
            manifest_digest: descriptor.digest,
            manifest_size: bytes.len() as u64,
            id,
            others: Vec::new(),
            size,
            platform: Some(config.platform()),
            repo_digest: None,
        })
    }

    /// An index of a layout with all its members: kept as it is.
    fn layout_index(&self, index: &Index, bytes: &[u8]) -> Result<NewImage, Error> {
        for member in &index.manifests {
            if is_attestation(member) {
                self.attestation(member)?;
            } else {
                let _ = self.layout_image(member)?;
            }
        }
        add_index_bytes(self.store, index, bytes)
    }

    /// A manifest of documents.
    fn attestation(&self, member: &Descriptor) -> Result<(), Error> {
        let take = |digest: &Digest| -> Result<&Vec<u8>, Error> {
            let name = format!("blobs/sha256/{}", digest.hex());
            let bytes = self.document(&name).ok_or_else(|| ArchiveError::Missing(name.clone()))?;
            verify(&name, digest, bytes)?;
            self.store.add_blob(bytes)?;
            Ok(bytes)
        };
        let name = format!("blobs/sha256/{}", member.digest.hex());
        let manifest: Manifest = parse(&name, take(&member.digest)?)?;
        for part in manifest.layers.iter().chain([&manifest.config]) {
            take(&part.digest)?;
        }
        Ok(())
    }

    /// An image of Docker's form, which has no manifest: one is written.
    fn docker_image(
        &self,
        described: &DockerImage,
        id: Digest,
        config: &ImageConfig,
        document: &[u8],
    ) -> Result<NewImage, Error> {
        let paths: Vec<&String> = described.layers.iter().flatten().collect();
        let (mut layers, mut size) = (Vec::with_capacity(paths.len()), 0);
        for (at, path) in paths.iter().enumerate() {
            let wanted = text(&normal(path.as_bytes(), path.as_bytes())?)?;
            let held = self.layer(&wanted).ok_or_else(|| ArchiveError::Missing((*path).clone()))?;
            size += self.check_layer(config, at, held)?;
            layers.push(Descriptor::new(held.media_type, held.digest, held.size));
        }
        complete(&described.config, config, layers.len())?;
        self.store.add_blob(document)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media_type::OCI_CONFIG, id, document.len() as u64),
            layers,
            annotations: BTreeMap::new(),
        };
        let path = self.store.content();
        let bytes = serde_json::to_vec(&manifest).map_err(|e| StoreError::damaged(&path, e))?;
        Ok(NewImage {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            manifest_digest: self.store.add_blob(&bytes)?,
            manifest_size: bytes.len() as u64,
            id,
            others: Vec::new(),
            size,
            platform: Some(config.platform()),
            repo_digest: None,
        })
    }

    /// The layer must be the one that the configuration means; returns its unpacked size.
    fn check_layer(&self, config: &ImageConfig, at: usize, held: &Ingested) -> Result<u64, Error> {
        match config.rootfs.diff_ids.get(at) {
            Some(expected) if *expected == held.diff_id => Ok(self.store.layer_size(expected).unwrap_or(0)),
            Some(expected) => Err(LayerError::DiffId { expected: *expected, actual: held.diff_id }.into()),
            None => Ok(0),
        }
    }
}

fn complete(config_path: &str, config: &ImageConfig, layers: usize) -> Result<(), ArchiveError> {
    let wanted = config.rootfs.diff_ids.len();
    if wanted == layers {
        return Ok(());
    }
    let reason = format!("it has {wanted} layers, the archive's manifest {layers}");
    Err(ArchiveError::Document { name: config_path.to_owned(), reason })
}

fn add(found: &mut Vec<(NewImage, Vec<Reference>)>, image: NewImage, name: Option<Reference>) {
    match found.iter_mut().find(|(known, _)| known.manifest_digest == image.manifest_digest) {
        Some((_, names)) => names.extend(name),
        None => found.push((image, name.into_iter().collect())),
    }
}

/// containerd's and Docker's annotation holds a full name; OCI's may hold a tag alone, which names nothing.
fn layout_name(descriptor: &Descriptor) -> Option<Reference> {
    let full = descriptor.annotations.get("io.containerd.image.name");
    let short =
        descriptor.annotations.get("org.opencontainers.image.ref.name").filter(|t| t.contains([':', '/']));
    Reference::parse(full.or(short)?).ok().filter(|name| name.digest().is_none())
}

fn verify(name: &str, expected: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let actual = sha256(bytes);
    if actual == *expected { Ok(()) } else { Err(mismatch(name, expected, &actual)) }
}

fn mismatch(name: &str, expected: &Digest, actual: &Digest) -> Error {
    ArchiveError::Document { name: name.to_owned(), reason: format!("expected {expected}, got {actual}") }
        .into()
}

fn parse<'d, T: serde::Deserialize<'d>>(name: &str, bytes: &'d [u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ArchiveError::Document { name: name.to_owned(), reason: e.to_string() })
}

fn text(path: &[u8]) -> Result<String, ArchiveError> {
    String::from_utf8(path.to_vec()).map_err(|_| ArchiveError::Document {
        name: String::from_utf8_lossy(path).into_owned(),
        reason: "its name is not UTF-8".to_owned(),
    })
}

/// Where the known forms keep layers.
fn is_layer_path(path: &str) -> bool {
    let path = std::path::Path::new(path);
    path.starts_with("blobs")
        || path.extension().is_some_and(|e| e == "tar" || e == "gz" || e == "tgz" || e == "zst")
}

/// Compressed, or beginning with a tar header, or (an empty layer) with the zero block that ends one.
fn looks_like_layer(start: &[u8]) -> bool {
    match Compression::detect(start) {
        Compression::Gzip | Compression::Zstd => true,
        // No image has such layers.
        Compression::Bzip2 | Compression::Xz => false,
        Compression::Plain => <&[u8; BLOCK]>::try_from(start).is_ok_and(|block| header::parse(block).is_ok()),
    }
}

/// Appends content of the current entry until `to` has `length` bytes.
fn take<R: BufRead>(reader: &mut Reader<R>, to: &mut Vec<u8>, length: usize) -> Result<(), Error> {
    while to.len() < length {
        let piece = reader.content().map_err(archive_error)?;
        let n = piece.len().min(length - to.len());
        if n == 0 {
            return Ok(());
        }
        to.extend_from_slice(&piece[..n]);
        reader.consume(n);
    }
    Ok(())
}

/// In the archive's own tar, as opposed to a layer's.
fn archive_error(error: LayerError) -> ArchiveError {
    match error {
        LayerError::Truncated => ArchiveError::Read(std::io::ErrorKind::UnexpectedEof.into()),
        LayerError::Compression(source) => ArchiveError::Read(source),
        other => ArchiveError::Document { name: "the archive".to_owned(), reason: other.to_string() },
    }
}
