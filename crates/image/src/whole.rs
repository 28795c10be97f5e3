//! All that an image consists of: what a registry must have before its name, and what an archive holds.

use std::collections::BTreeSet;

use cata_spec::image::{Descriptor, Manifest, media_type};

use crate::error::{Error, StoreError};
use crate::request::Image;
use crate::store::Store;

impl Store {
    /// What a name of the image leads to.
    ///
    /// # Errors
    /// It is not in the store any more.
    pub fn descriptor(&self, image: &Image) -> Result<Descriptor, Error> {
        Ok(Whole::of(self, image)?.top)
    }
}

/// An image, or an index with all its members.
#[derive(Debug)]
pub(crate) struct Whole {
    /// What a name leads to.
    pub(crate) top: Descriptor,
    /// Manifests that an index leads to; none of a single image.
    pub(crate) manifests: Vec<Descriptor>,
    /// Layers of images.
    pub(crate) layers: Vec<Descriptor>,
    /// Configurations, and what attestations say.
    pub(crate) documents: Vec<Descriptor>,
}

impl Whole {
    /// # Errors
    /// A member of the index is not in the store.
    pub(crate) fn of(store: &Store, image: &Image) -> Result<Self, Error> {
        let Some(index) = &image.index else {
            let (_, size) = store.open_blob(&image.manifest_digest)?;
            let kind = image.manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
            let mut top = Descriptor::new(kind, image.manifest_digest, size);
            top.platform = Some(image.platform());
            let mut whole = Self { top, manifests: Vec::new(), layers: Vec::new(), documents: Vec::new() };
            whole.take(&image.manifest, false);
            return Ok(whole);
        };
        let mut whole =
            Self { top: index.clone(), manifests: Vec::new(), layers: Vec::new(), documents: Vec::new() };
        for member in store.members(image)? {
            let attestation = member.is_attestation();
            let manifest = member.manifest.ok_or(StoreError::MissingBlob(member.descriptor.digest))?;
            whole.manifests.push(member.descriptor);
            whole.take(&manifest, attestation);
        }
        let mut seen = BTreeSet::new();
        whole.manifests.retain(|manifest| seen.insert(manifest.digest));
        whole.layers.retain(|layer| seen.insert(layer.digest));
        whole.documents.retain(|document| seen.insert(document.digest));
        Ok(whole)
    }

    /// Every blob; what leads to others comes before them.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let top = std::iter::once(&self.top);
        top.chain(&self.manifests).chain(&self.documents).chain(&self.layers)
    }

    fn take(&mut self, manifest: &Manifest, attestation: bool) {
        let to = if attestation { &mut self.documents } else { &mut self.layers };
        to.extend(manifest.layers.iter().cloned());
        self.documents.push(manifest.config.clone());
    }
}
