//! `save`: one archive that is both an OCI image layout and what `docker load` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use cata_spec::image::{Index, media_type};
use cata_spec::{Digest, Platform, Reference};

use crate::archive::document::DockerImage;
use crate::archive::writer::Writer;
use crate::error::{ArchiveError, Error, StoreError};
use crate::request::Image;
use crate::store::Store;
use crate::whole::Whole;

/// Writes images to `to`, indices with all their members. An image asked for by id is written without names, as
/// Docker does.
///
/// # Errors
/// No such image (before anything is written); a blob is missing; `to` cannot be written.
pub fn save(store: &Store, names: &[String], to: &mut dyn Write) -> Result<(), Error> {
    save_for(store, names, None, to)
}

/// As [`save`]; of an index the member for a platform alone.
///
/// # Errors
/// As [`save`]; an image is not for that platform.
pub fn save_for(
    store: &Store,
    names: &[String],
    platform: Option<&Platform>,
    to: &mut dyn Write,
) -> Result<(), Error> {
    let _lease = store.lease()?;
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for text in names {
        let mut image = store.resolve_for(text, platform)?;
        if let Some(wanted) = platform {
            if wanted.distance(&image.platform()).is_none() {
                return Err(StoreError::NoPlatform {
                    image: text.clone(),
                    wanted: wanted.clone(),
                    offered: image.platform().to_string(),
                }
                .into());
            }
            image.index = None;
        }
        let name = Reference::parse(text).ok().filter(|name| image.names.contains(name));
        match images.iter_mut().find(|(known, _)| top(known) == top(&image)) {
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
        let whole = Whole::of(store, image)?;
        for descriptor in whole.blobs() {
            if written.insert(descriptor.digest) {
                let (mut file, size) = store.open_blob(&descriptor.digest)?;
                tar.stream(&blob_name(&descriptor.digest), size, &mut file).map_err(failed)?;
            }
        }
    }
    Ok(tar.finish().map_err(failed)?)
}

/// What a name of the image leads to.
fn top(image: &Image) -> Digest {
    image.index.as_ref().map_or(image.manifest_digest, |index| index.digest)
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
        let bare = Whole::of(store, image)?.top;
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
