//! From what a user typed to an image.

use cata_spec::image::{ImageConfig, Manifest, ManifestDocument};
use cata_spec::{Digest, Platform, Reference};

use super::Store;
use super::index::Entry;
use crate::error::{Error, StoreError};
use crate::request::Image;

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
        let entries = self.entries()?;
        let found = self.find(&entries, text)?.clone();
        Ok(self.image(&entries, &found)?)
    }

    /// The entry that `text` means.
    pub(super) fn find<'e>(&self, entries: &'e [Entry], text: &str) -> Result<&'e Entry, Error> {
        match parse(text)? {
            Query::Id(id) => self.by_id(entries, |digest| *digest == id, text),
            Query::IdPrefix(prefix) => self.by_id(entries, |digest| digest.hex().starts_with(&prefix), text),
            Query::NameOrPrefix(reference, prefix) => match by_name(entries, &reference) {
                Some(entry) => Ok(entry),
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
    ) -> Result<&'e Entry, Error> {
        let mut found: Vec<(Digest, &Entry)> = Vec::new();
        for entry in entries {
            // An entry that cannot be read must not make every id unreadable.
            let Ok(id) = self.entry_id(entry) else { continue };
            // A manifest's digest finds its image too, as Docker's own containerd store does.
            if (fits(&id) || fits(&entry.descriptor.digest)) && found.iter().all(|(known, _)| *known != id) {
                found.push((id, entry));
            }
        }
        match found.as_slice() {
            [] => Err(StoreError::NoSuchImage(text.to_owned()).into()),
            [(_, entry)] => Ok(entry),
            several => Err(StoreError::Ambiguous(text.to_owned(), several.len()).into()),
        }
    }

    /// The image id of an entry: noted, or read from its manifest.
    pub(crate) fn entry_id(&self, entry: &Entry) -> Result<Digest, StoreError> {
        match entry.noted_id() {
            Some(id) => Ok(id),
            None => Ok(self.manifest(&entry.descriptor.digest)?.1.config.digest),
        }
    }

    /// The manifest behind a descriptor's digest; of an index that another tool put here, the host's.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<(Digest, Manifest), StoreError> {
        let bytes = self.read_blob(digest)?;
        let path = self.blob_path(digest);
        match ManifestDocument::parse(&bytes, None).map_err(|e| StoreError::damaged(&path, e))? {
            ManifestDocument::Image(manifest) => Ok((*digest, manifest)),
            ManifestDocument::Index(index) => {
                let present: Vec<_> = index.manifests.iter().filter(|m| self.has_blob(&m.digest)).collect();
                let unknown = Platform::default();
                let at = Platform::host()
                    .choose(present.iter().map(|m| m.platform.as_ref().unwrap_or(&unknown)))
                    .ok_or(StoreError::MissingBlob(*digest))?;
                match ManifestDocument::parse(&self.read_blob(&present[at].digest)?, None) {
                    Ok(ManifestDocument::Image(manifest)) => Ok((present[at].digest, manifest)),
                    Ok(ManifestDocument::Index(_)) => {
                        Err(StoreError::damaged(&path, "an index within an index"))
                    }
                    Err(e) => Err(StoreError::damaged(&path, e)),
                }
            }
        }
    }

    /// Reads an image's documents.
    pub(crate) fn image(&self, entries: &[Entry], entry: &Entry) -> Result<Image, StoreError> {
        let (manifest_digest, manifest) = self.manifest(&entry.descriptor.digest)?;
        let id = manifest.config.digest;
        let config = self.config(&id)?;
        let same: Vec<&Entry> =
            entries.iter().filter(|other| other.descriptor.digest == entry.descriptor.digest).collect();
        let size = match entry.noted_size() {
            Some(size) => size,
            None => config.rootfs.diff_ids.iter().filter_map(|id| self.layer_size(id)).sum(),
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
        Ok(Image { id, manifest_digest, manifest, config, names, repo_digests, size })
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
