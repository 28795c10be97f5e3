//! `--build-context NAME=oci-layout://DIR`: images in directories of this host, taken into the store for one build.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cata_image::{RemoveOptions, Silent};
use cata_spec::Digest;

use super::request::{BuildRequest, NamedContext};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::image_error;

/// Images that came for this build alone: they go when this is dropped. Layers that were built upon stay with what was
/// built.
pub(super) struct Taken<'e> {
    engine: &'e Engine,
    digests: Vec<Digest>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for digest in &self.digests {
            let _ = self.engine.image_remove(&digest.to_string(), RemoveOptions::default());
        }
    }
}

/// The request with images of the store where it says layouts.
pub(super) fn take<'r, 'e>(
    engine: &'e Engine,
    request: &'r BuildRequest,
) -> Result<(Cow<'r, BuildRequest>, Taken<'e>)> {
    let mut taken = Taken { engine, digests: Vec::new() };
    let mut request = Cow::Borrowed(request);
    let is_layout = |context: &NamedContext| matches!(context, NamedContext::Layout(..));
    if !request.contexts.values().any(is_layout) {
        return Ok((request, taken));
    }
    let known: BTreeSet<Digest> = engine.image_list()?.into_iter().map(|image| image.digest()).collect();
    for context in request.to_mut().contexts.values_mut() {
        let NamedContext::Layout(dir, which) = &*context else { continue };
        let digest = cata_image::layout_digest(dir, which.as_deref()).map_err(image_error)?;
        for loaded in cata_image::read_layout(&engine.images, dir, &Silent).map_err(image_error)? {
            let loaded = engine.image(&loaded.id.to_string())?.digest();
            if !known.contains(&loaded) && !taken.digests.contains(&loaded) {
                taken.digests.push(loaded);
            }
        }
        *context = NamedContext::Image(digest.to_string());
    }
    Ok((request, taken))
}
