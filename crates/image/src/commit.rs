//! An image of layers that are in the store already: what `build` and `commit` end with.

use cata_spec::image::{Descriptor, Manifest, media_type};

use crate::error::{Error, StoreError};
use crate::request::{CommitRequest, Image};
use crate::store::{NewImage, Store, sync_dir};

/// Writes configuration and manifest and names the image. The same request gives the same image.
///
/// # Errors
/// A layer is missing, or their number is not that of the configuration's diff-ids; no space.
pub fn commit(store: &Store, request: &CommitRequest) -> Result<Image, Error> {
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
    let id = store.add_blob(&document)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: Descriptor::new(media_type::OCI_CONFIG, id, document.len() as u64),
        layers: request.layers.clone(),
        annotations: request.annotations.clone(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(damaged)?;
    let manifest_digest = store.add_blob(&bytes)?;
    sync_dir(&store.content().join("blobs/sha256"))?;
    let size = request.config.rootfs.diff_ids.iter().filter_map(|id| store.layer_size(id)).sum();
    let new = NewImage {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        manifest_digest,
        manifest_size: bytes.len() as u64,
        id,
        size,
        platform: request.config.platform(),
        repo_digest: None,
    };
    store.add_image(&new, &request.names)?;
    store.resolve(&id.to_string())
}
