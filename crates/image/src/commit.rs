//! An image of layers that are in the store already: what `build` and `commit` end with. And an index of images.

use cata_spec::Digest;
use cata_spec::image::{Descriptor, Index, Manifest, media_type};

use crate::error::{Error, StoreError};
use crate::request::{CommitRequest, Image, IndexRequest, is_attestation};
use crate::store::{NewImage, Store, sha256};

/// Writes configuration and manifest and names the image. The same request gives the same image.
///
/// # Errors
/// A layer is missing, or their number is not that of the configuration's diff-ids; no space.
pub fn commit(store: &Store, request: &CommitRequest) -> Result<Image, Error> {
    let _lease = store.lease()?;
    let manifest = commit_member(store, request)?;
    let id = manifest.config;
    let size = request.config.rootfs.diff_ids.iter().filter_map(|id| store.layer_size(id)).sum();
    let new = NewImage {
        media_type: manifest.descriptor.media_type,
        manifest_digest: manifest.descriptor.digest,
        manifest_size: manifest.descriptor.size,
        id,
        others: Vec::new(),
        size,
        platform: manifest.descriptor.platform,
        repo_digest: None,
    };
    store.add_image(&new, &request.names)?;
    store.resolve_digest(&new.manifest_digest)
}

/// A manifest that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The manifest, with its platform.
    pub descriptor: Descriptor,
    /// Its configuration: the image's id.
    pub config: Digest,
}

/// Writes configuration and manifest for an index to come: nothing is named, so hold the lease until the index is.
///
/// # Errors
/// As [`commit`].
pub fn commit_member(store: &Store, request: &CommitRequest) -> Result<Written, Error> {
    let _lease = store.lease()?;
    let path = store.content();
    if request.layers.len() != request.config.rootfs.diff_ids.len() {
        return Err(StoreError::damaged(&path, "layers and diff-ids differ in number").into());
    }
    if let Some(missing) = request.layers.iter().find(|layer| !store.has_blob(&layer.digest)) {
        return Err(StoreError::MissingBlob(missing.digest).into());
    }
    let damaged = |e: serde_json::Error| StoreError::damaged(&path, e);
    let document = serde_json::to_vec(&request.config).map_err(damaged)?;
    let id = sha256(&document);
    let (kind, config) = if request.docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        config: Descriptor::new(config, id, document.len() as u64),
        layers: request.layers.iter().map(|layer| in_words_of(layer, request.docker)).collect(),
        annotations: request.annotations.clone(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(damaged)?;
    let manifest_digest = sha256(&bytes);
    store.add_blobs(&[&document, &bytes])?;
    let mut descriptor = Descriptor::new(kind, manifest_digest, bytes.len() as u64);
    descriptor.platform = Some(request.config.platform());
    Ok(Written { descriptor, config: id })
}

/// A layer with its media type in OCI's words or in Docker's, whoever made it.
fn in_words_of(layer: &Descriptor, docker: bool) -> Descriptor {
    const WORDS: [(&str, &str); 3] = [
        (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
        (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
    ];
    let known = WORDS.iter().find(|(oci, dockers)| layer.media_type == *oci || layer.media_type == *dockers);
    match known {
        Some((oci, dockers)) => {
            Descriptor { media_type: (if docker { dockers } else { oci }).to_string(), ..layer.clone() }
        }
        None => layer.clone(),
    }
}

/// Writes an index and names it. The same request gives the same index.
///
/// # Errors
/// A member is missing, or there is none; no space.
pub fn commit_index(store: &Store, request: &IndexRequest) -> Result<Image, Error> {
    let _lease = store.lease()?;
    let kind = if request.docker { media_type::DOCKER_INDEX } else { media_type::OCI_INDEX };
    let index = Index {
        schema_version: 2,
        media_type: Some(kind.to_owned()),
        manifests: request.manifests.clone(),
        annotations: request.annotations.clone(),
    };
    let new = add_index(store, &index)?;
    store.add_image(&new, &request.names)?;
    store.resolve_digest(&new.manifest_digest)
}

/// Writes an index whose members are there; it is still to be named.
pub(crate) fn add_index(store: &Store, index: &Index) -> Result<NewImage, Error> {
    let path = store.content();
    let bytes = serde_json::to_vec(index).map_err(|e| StoreError::damaged(&path, e))?;
    add_index_bytes(store, index, &bytes)
}

/// As [`add_index`], of an index as it was written by others.
pub(crate) fn add_index_bytes(store: &Store, index: &Index, bytes: &[u8]) -> Result<NewImage, Error> {
    let path = store.content();
    let mut ids: Vec<(cata_spec::Platform, Digest)> = Vec::new();
    for member in &index.manifests {
        let manifest: Manifest = serde_json::from_slice(&store.read_blob(&member.digest)?)
            .map_err(|e| StoreError::damaged(&path, e))?;
        if !is_attestation(member) {
            ids.push((member.platform.clone().unwrap_or_default(), manifest.config.digest));
        }
    }
    let first = cata_spec::Platform::host().choose(ids.iter().map(|(platform, _)| platform)).unwrap_or(0);
    if ids.is_empty() {
        return Err(StoreError::damaged(&path, "an index of no image").into());
    }
    let (_, id) = ids.remove(first);
    let size = match store.config(&id) {
        Ok(config) => config.rootfs.diff_ids.iter().filter_map(|id| store.layer_size(id)).sum(),
        Err(error) => return Err(error.into()),
    };
    Ok(NewImage {
        media_type: index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.to_owned()),
        manifest_digest: store.add_blob(bytes)?,
        manifest_size: bytes.len() as u64,
        id,
        others: ids.into_iter().map(|(_, id)| id).collect(),
        size,
        platform: None,
        repo_digest: None,
    })
}
