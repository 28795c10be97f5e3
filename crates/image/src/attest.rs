//! What is attested of an image, as BuildKit keeps it: statements in a manifest of their own, which stands beside
//! the image's in an index and says whose it is.

use cata_spec::image::{Descriptor, ImageConfig, Manifest, RootFs, media_type};
use cata_spec::{Digest, Platform};

use crate::error::{Error, StoreError};
use crate::store::Store;

/// An in-toto statement.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Writes statements of an image: their predicates' types, and their texts. For an index to come: nothing is named, so
/// hold the lease until that is.
///
/// # Errors
/// No space.
pub fn commit_attestation(
    store: &Store,
    image: &Descriptor,
    statements: &[(&str, Vec<u8>)],
) -> Result<Descriptor, Error> {
    let _lease = store.lease()?;
    let mut layers = Vec::with_capacity(statements.len());
    for (predicate, text) in statements {
        let mut layer = Descriptor::new(STATEMENT, store.add_blob(text)?, text.len() as u64);
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), (*predicate).to_owned());
        layers.push(layer);
    }
    let nowhere =
        || Platform { architecture: "unknown".to_owned(), os: "unknown".to_owned(), ..Platform::default() };
    let config = ImageConfig {
        architecture: nowhere().architecture,
        os: nowhere().os,
        rootfs: RootFs {
            diff_ids: layers.iter().map(|layer| layer.digest).collect::<Vec<Digest>>(),
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    let path = store.content();
    let damaged = |e: serde_json::Error| StoreError::damaged(&path, e);
    let document = serde_json::to_vec(&config).map_err(damaged)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: Descriptor::new(media_type::OCI_CONFIG, store.add_blob(&document)?, document.len() as u64),
        layers,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(damaged)?;
    let mut made = Descriptor::new(media_type::OCI_MANIFEST, store.add_blob(&bytes)?, bytes.len() as u64);
    made.platform = Some(nowhere());
    made.annotations.insert("vnd.docker.reference.digest".to_owned(), image.digest.to_string());
    made.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    Ok(made)
}
