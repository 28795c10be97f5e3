//! From what a user typed to an image.

use cata_spec::image::{Descriptor, ImageConfig, Index, Manifest, ManifestDocument, is_index};
use cata_spec::{Digest, Platform, Reference};

use super::Store;
use super::index::Entry;
use crate::error::{Error, StoreError};
use crate::request::{Image, Member};

/// How a text can be meant, in the order in which Docker tries them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Query {
    /// A whole id.
    Id(Digest),
    /// `sha256:` and the beginning of an id.
    IdPrefix(String),
    /// A name, or else the beginning of an id when it is all hexadecimal.
    NameOrPrefix(Reference, Option<String>),
}

/// Which member of an index.
enum Wanted {
    Id(Digest),
    Platform(Platform),
}

fn parse(text: &str) -> Result<Query, Error> {
    let hex = |t: &str| {
        !t.is_empty() && t.len() <= 64 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if let Some(id) = Digest::from_hex(text) {
        return Ok(Query::Id(id));
    }
    if let Some(rest) = text.strip_prefix("sha256:")
        && hex(rest)
    {
        return Ok(Digest::from_hex(rest).map_or_else(|| Query::IdPrefix(rest.to_owned()), Query::Id));
    }
    Ok(Query::NameOrPrefix(Reference::parse(text)?, hex(text).then(|| text.to_owned())))
}

impl Store {
    /// Finds an image by name (Docker's normalisation), `name@digest`, id, or unique beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::Ambiguous`]; a reference that cannot be parsed; damage.
    pub fn resolve(&self, text: &str) -> Result<Image, Error> {
        self.resolve_for(text, None)
    }

    /// As [`Store::resolve`]; of an index the member for `platform`. Without a platform, or if there is none for it,
    /// the one whose id was given, or this host's, or the first.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn resolve_for(&self, text: &str, platform: Option<&Platform>) -> Result<Image, Error> {
        let entries = self.entries()?;
        let (found, id) = self.find_member(&entries, text)?;
        let wanted = match (platform, id) {
            (Some(platform), _) => Wanted::Platform(platform.clone()),
            (None, Some(id)) => Wanted::Id(id),
            (None, None) => Wanted::Platform(Platform::host()),
        };
        Ok(self.image(&entries, found, &wanted)?)
    }

    /// The image, or index, of this digest.
    pub(crate) fn resolve_digest(&self, digest: &Digest) -> Result<Image, Error> {
        let entries = self.entries()?;
        let found = entries.iter().find(|entry| entry.descriptor.digest == *digest);
        let found = found.ok_or_else(|| StoreError::NoSuchImage(digest.to_string()))?;
        Ok(self.image(&entries, found, &Wanted::Platform(Platform::host()))?)
    }

    /// The entry that `text` means.
    pub(super) fn find<'e>(&self, entries: &'e [Entry], text: &str) -> Result<&'e Entry, Error> {
        Ok(self.find_member(entries, text)?.0)
    }

    /// The entry that `text` means, and the id of the image if that is what it is.
    fn find_member<'e>(
        &self,
        entries: &'e [Entry],
        text: &str,
    ) -> Result<(&'e Entry, Option<Digest>), Error> {
        match parse(text)? {
            Query::Id(id) => self.by_id(entries, |digest| *digest == id, text),
            Query::IdPrefix(prefix) => self.by_id(entries, |digest| digest.hex().starts_with(&prefix), text),
            Query::NameOrPrefix(reference, prefix) => match by_name(entries, &reference) {
                Some(entry) => Ok((entry, None)),
                None => match prefix {
                    Some(prefix) => self.by_id(entries, |digest| digest.hex().starts_with(&prefix), text),
                    None => Err(StoreError::NoSuchImage(reference.familiar()).into()),
                },
            },
        }
    }

    fn by_id<'e>(
        &self,
        entries: &'e [Entry],
        fits: impl Fn(&Digest) -> bool,
        text: &str,
    ) -> Result<(&'e Entry, Option<Digest>), Error> {
        let mut found: Vec<(Digest, &Entry)> = Vec::new();
        // An image of its own before the same one as a member of an index.
        let (indices, images): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| is_index(&entry.descriptor.media_type));
        for entry in images.into_iter().chain(indices) {
            // An entry that cannot be read must not make every id unreadable.
            let Ok(id) = self.entry_id(entry) else { continue };
            // A manifest's digest finds its image too, as Docker's own containerd store does.
            if fits(&entry.descriptor.digest) && found.iter().all(|(known, _)| *known != id) {
                found.push((id, entry));
                continue;
            }
            for id in std::iter::once(id).chain(entry.noted_others()) {
                if fits(&id) && found.iter().all(|(known, _)| *known != id) {
                    found.push((id, entry));
                }
            }
        }
        match found.as_slice() {
            [] => Err(StoreError::NoSuchImage(text.to_owned()).into()),
            [(id, entry)] => Ok((entry, Some(*id))),
            several => Err(StoreError::Ambiguous(text.to_owned(), several.len()).into()),
        }
    }

    /// The image id of an entry: noted, or read from its manifest.
    pub(crate) fn entry_id(&self, entry: &Entry) -> Result<Digest, StoreError> {
        match entry.noted_id() {
            Some(id) => Ok(id),
            None => {
                let wanted = Wanted::Platform(Platform::host());
                Ok(self.manifest(&entry.descriptor.digest, &wanted)?.1.config.digest)
            }
        }
    }

    /// The manifest behind a descriptor's digest; of an index the member that is wanted.
    fn manifest(&self, digest: &Digest, wanted: &Wanted) -> Result<(Digest, Manifest), StoreError> {
        let bytes = self.read_blob(digest)?;
        let path = self.blob_path(digest);
        match ManifestDocument::parse(&bytes, None).map_err(|e| StoreError::damaged(&path, e))? {
            ManifestDocument::Image(manifest) => Ok((*digest, manifest)),
            ManifestDocument::Index(index) => {
                let mut images = Vec::new();
                for member in self.members_of(&index)? {
                    if !member.is_attestation()
                        && let Some(manifest) = member.manifest
                    {
                        images.push((member.descriptor, manifest));
                    }
                }
                let unknown = Platform::default();
                let at = match wanted {
                    Wanted::Id(id) => images.iter().position(|(_, manifest)| manifest.config.digest == *id),
                    Wanted::Platform(platform) => platform.choose(
                        images.iter().map(|(member, _)| member.platform.as_ref().unwrap_or(&unknown)),
                    ),
                };
                let chosen = images.into_iter().nth(at.unwrap_or(0));
                chosen
                    .map(|(member, manifest)| (member.digest, manifest))
                    .ok_or(StoreError::MissingBlob(*digest))
            }
        }
    }

    fn members_of(&self, index: &Index) -> Result<Vec<Member>, StoreError> {
        let mut members = Vec::with_capacity(index.manifests.len());
        for descriptor in &index.manifests {
            let path = self.blob_path(&descriptor.digest);
            let manifest = match self.read_blob(&descriptor.digest) {
                Err(StoreError::MissingBlob(_)) => None,
                Err(error) => return Err(error),
                Ok(bytes) => match ManifestDocument::parse(&bytes, Some(&descriptor.media_type)) {
                    Ok(ManifestDocument::Image(manifest)) => Some(manifest),
                    Ok(ManifestDocument::Index(_)) => {
                        return Err(StoreError::damaged(&path, "an index within an index"));
                    }
                    Err(e) => return Err(StoreError::damaged(&path, e)),
                },
            };
            members.push(Member { descriptor: descriptor.clone(), manifest });
        }
        Ok(members)
    }

    /// The members of the index that an image is of; none if it is of none.
    ///
    /// # Errors
    /// The index, or a manifest of it, cannot be read.
    pub fn members(&self, image: &Image) -> Result<Vec<Member>, Error> {
        match &image.index {
            None => Ok(Vec::new()),
            Some(descriptor) => Ok(self.members_of(&self.index(descriptor)?)?),
        }
    }

    /// Reads an image index.
    pub(crate) fn index(&self, descriptor: &Descriptor) -> Result<Index, StoreError> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = self.read_blob(&descriptor.digest)?;
        match ManifestDocument::parse(&bytes, Some(&descriptor.media_type)) {
            Ok(ManifestDocument::Index(index)) => Ok(index),
            Ok(ManifestDocument::Image(_)) => Err(StoreError::damaged(&path, "a manifest, not an index")),
            Err(e) => Err(StoreError::damaged(&path, e)),
        }
    }

    /// Reads an image's documents.
    fn image(&self, entries: &[Entry], entry: &Entry, wanted: &Wanted) -> Result<Image, StoreError> {
        let (manifest_digest, manifest) = self.manifest(&entry.descriptor.digest, wanted)?;
        let id = manifest.config.digest;
        let config = self.config(&id)?;
        let same: Vec<&Entry> =
            entries.iter().filter(|other| other.descriptor.digest == entry.descriptor.digest).collect();
        let size = match entry.noted_size() {
            Some(size) if entry.noted_id() == Some(id) => size,
            _ => config.rootfs.diff_ids.iter().filter_map(|id| self.layer_size(id)).sum(),
        };
        let mut names: Vec<Reference> =
            same.iter().filter_map(|e| Reference::parse_untagged(e.name()?).ok()).collect();
        names.sort();
        let mut repo_digests: Vec<Reference> = same
            .iter()
            .flat_map(|e| e.repo_digests())
            .filter_map(|text| Reference::parse_untagged(text).ok())
            .collect();
        repo_digests.sort();
        repo_digests.dedup();
        let index = (manifest_digest != entry.descriptor.digest).then(|| Descriptor {
            annotations: Default::default(),
            platform: None,
            ..entry.descriptor.clone()
        });
        Ok(Image { id, manifest_digest, manifest, config, names, repo_digests, size, index })
    }

    /// As [`Store::image`], this host's member of an index.
    pub(super) fn listed(&self, entries: &[Entry], entry: &Entry) -> Result<Image, StoreError> {
        self.image(entries, entry, &Wanted::Platform(Platform::host()))
    }

    /// Reads an image configuration.
    pub(crate) fn config(&self, id: &Digest) -> Result<ImageConfig, StoreError> {
        serde_json::from_slice(&self.read_blob(id)?).map_err(|e| StoreError::damaged(&self.blob_path(id), e))
    }
}

fn by_name<'e>(entries: &'e [Entry], reference: &Reference) -> Option<&'e Entry> {
    let Some(digest) = reference.digest() else {
        let full = reference.to_string();
        return entries.iter().find(|entry| entry.name() == Some(full.as_str()));
    };
    // A tag beside a digest does not count, as in Docker.
    let repository = reference.name();
    let pinned = reference.with_digest(digest).to_string();
    entries.iter().find(|entry| {
        entry.repo_digests().any(|known| known == pinned)
            || (entry.descriptor.digest == digest
                && entry
                    .name()
                    .and_then(|n| Reference::parse_untagged(n).ok())
                    .is_some_and(|n| n.name() == repository))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_an_id_a_prefix_or_a_name() {
        let hex = "ab".repeat(32);
        let id = Digest::from_hex(&hex).unwrap();
        assert_eq!(parse(&hex).unwrap(), Query::Id(id));
        assert_eq!(parse(&format!("sha256:{hex}")).unwrap(), Query::Id(id));
        assert_eq!(parse("sha256:abc").unwrap(), Query::IdPrefix("abc".into()));
        assert!(matches!(parse("abc").unwrap(), Query::NameOrPrefix(_, Some(_))));
        assert!(matches!(parse("abc:1").unwrap(), Query::NameOrPrefix(_, None)));
        assert!(matches!(parse("A B"), Err(Error::Reference(_))));
    }
}
