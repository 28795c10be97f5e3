//! Layers that came as plain tar are compressed before they are pushed.
//!
//! `load` keeps plain layers as they are, because that is fast and most loaded images are never pushed.
//! The image id does not change (it is the configuration's digest), only manifest and blobs do.

use std::fs::File;
use std::io::{Read as _, Write as _};

use cata_spec::Digest;
use cata_spec::image::{Descriptor, Manifest, media_type};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Error, StoreError};
use crate::layer::unpack::CHUNK;
use crate::request::Image;
use crate::store::{Hasher, NewImage, Store};

/// The image with every layer compressed; as it was if they all are.
pub(crate) fn for_push(store: &Store, image: Image) -> Result<Image, Error> {
    let plain = |layer: &Descriptor| {
        matches!(layer.media_type.as_str(), media_type::OCI_LAYER | media_type::DOCKER_LAYER)
    };
    if !image.manifest.layers.iter().any(plain) {
        return Ok(image);
    }
    let mut layers = Vec::with_capacity(image.manifest.layers.len());
    for layer in &image.manifest.layers {
        layers.push(if plain(layer) { compressed(store, layer)? } else { layer.clone() });
    }
    let manifest = Manifest { layers, ..image.manifest.clone() };
    let path = store.content();
    let bytes = serde_json::to_vec(&manifest).map_err(|e| StoreError::damaged(&path, e))?;
    let manifest_digest = store.add_blob(&bytes)?;
    let new = NewImage {
        media_type: manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned()),
        manifest_digest,
        manifest_size: bytes.len() as u64,
        id: image.id,
        size: image.size,
        platform: image.platform(),
        repo_digest: None,
    };
    store.replace_manifest(&image.manifest_digest, &new)?;
    Ok(Image { manifest, manifest_digest, ..image })
}

fn compressed(store: &Store, layer: &Descriptor) -> Result<Descriptor, Error> {
    let (mut blob, _) = store.open_blob(&layer.digest)?;
    let (file, path) = store.ingest_file("gzip")?;
    let io = |e: std::io::Error| StoreError::io("writing", &path, e);
    let mut gzip = Gzip::new(file);
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let n = blob
            .read(&mut buffer)
            .map_err(|e| StoreError::io("reading", &store.blob_path(&layer.digest), e))?;
        if n == 0 {
            break;
        }
        gzip.write(&buffer[..n]).map_err(io)?;
    }
    let (file, digest, size) = gzip.finish().map_err(io)?;
    store.publish_blob(&file, &path, &digest)?;
    let kind = if layer.media_type == media_type::DOCKER_LAYER {
        media_type::DOCKER_LAYER_GZIP
    } else {
        media_type::OCI_LAYER_GZIP
    };
    Ok(Descriptor::new(kind, digest, size))
}

/// Compresses into a file, hashing what it writes.
pub(crate) struct Gzip {
    encoder: GzEncoder<Hashed>,
}

struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Gzip {
    pub(crate) fn new(file: File) -> Self {
        let to = Hashed { file, hasher: Hasher::new(), size: 0 };
        Self { encoder: GzEncoder::new(to, Compression::new(4)) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.encoder.write_all(bytes)
    }

    /// The file, its digest and its size.
    pub(crate) fn finish(self) -> std::io::Result<(File, Digest, u64)> {
        let done = self.encoder.finish()?;
        Ok((done.file, done.hasher.finish(), done.size))
    }
}
