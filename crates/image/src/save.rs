//! `save`: one archive that is both an OCI image layout and what `docker load` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use cata_spec::image::{Descriptor, Index, media_type};
use cata_spec::{Digest, Reference};

use crate::archive::document::DockerImage;
use crate::archive::writer::Writer;
use crate::error::{ArchiveError, Error, StoreError};
use crate::request::Image;
use crate::store::Store;

/// Writes images to `to`. An image asked for by id is written without names, as Docker does.
///
/// # Errors
/// No such image (before anything is written); a blob is missing; `to` cannot be written.
pub fn save(store: &Store, names: &[String], to: &mut dyn Write) -> Result<(), Error> {
    let _lease = store.lease()?;
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for text in names {
        let image = store.resolve(text)?;
        let name = Reference::parse(text).ok().filter(|name| image.names.contains(name));
        match images.iter_mut().find(|(known, _)| known.manifest_digest == image.manifest_digest) {
            Some((_, known)) => known.extend(name.filter(|name| !known.contains(name))),
            None => images.push((image, name.into_iter().collect())),
        }
    }
    let mut buffered = BufWriter::with_capacity(1 << 20, to);
    let mut tar = Writer::new(&mut buffered);
    let failed = ArchiveError::Write;
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    let path = store.content();
    let damaged = |e: serde_json::Error| StoreError::damaged(&path, e);
    tar.file("index.json", &serde_json::to_vec(&index(store, &images)?).map_err(damaged)?).map_err(failed)?;
    let docker: Vec<DockerImage> = images.iter().map(|(image, names)| docker_image(image, names)).collect();
    tar.file("manifest.json", &serde_json::to_vec(&docker).map_err(damaged)?).map_err(failed)?;
    tar.directory("blobs/").map_err(failed)?;
    tar.directory("blobs/sha256/").map_err(failed)?;
    let mut written = BTreeSet::new();
    for (image, _) in &images {
        let layers = image.manifest.layers.iter().map(|layer| layer.digest);
        for digest in [image.manifest_digest, image.id].into_iter().chain(layers) {
            if written.insert(digest) {
                let (mut file, size) = store.open_blob(&digest)?;
                tar.stream(&blob_name(&digest), size, &mut file).map_err(failed)?;
            }
        }
    }
    Ok(tar.finish().map_err(failed)?)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn docker_image(image: &Image, names: &[Reference]) -> DockerImage {
    DockerImage {
        config: blob_name(&image.id),
        repo_tags: Some(names.iter().map(Reference::familiar).collect()),
        layers: Some(image.manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect()),
    }
}

pub(crate) fn index(store: &Store, images: &[(Image, Vec<Reference>)]) -> Result<Index, Error> {
    let mut manifests = Vec::new();
    for (image, names) in images {
        let kind = image.manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
        let (_, size) = store.open_blob(&image.manifest_digest)?;
        let mut bare = Descriptor::new(kind, image.manifest_digest, size);
        bare.platform = Some(image.platform());
        if names.is_empty() {
            manifests.push(bare.clone());
        }
        for name in names {
            let mut named = bare.clone();
            named.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
            let tag = name.tag().unwrap_or_default().to_owned();
            named.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
            manifests.push(named);
        }
    }
    let media_type = Some(media_type::OCI_INDEX.to_owned());
    Ok(Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() })
}
