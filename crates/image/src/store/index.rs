//! `index.json`: which images there are and what they are called.
//!
//! One descriptor for each name of an image (its full name in `org.opencontainers.image.ref.name`), or one
//! without a name for a dangling image. Facts that follow from the manifest are noted beside it, so that
//! looking an image up by id opens no other file; they never change, for a manifest never does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cata_spec::image::{Descriptor, Index};
use cata_spec::{Digest, Platform, Reference};
use rustix::fs::FlockOperation;

use super::Store;
use super::blobs::{sync_dir, write_atomic_after};
use super::lease::{lock, open_lock};
use crate::error::StoreError;

/// The full name.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The image id (digest of the configuration).
const ID: &str = "catamaran.image.id";
/// Of an index: the ids of its other members, separated by spaces.
const OTHERS: &str = "catamaran.image.others";
/// Bytes unpacked.
const SIZE: &str = "catamaran.image.size";
/// `name@digest` as registries know it, separated by spaces.
const REPO_DIGESTS: &str = "catamaran.repo.digests";

/// One line of the index, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) descriptor: Descriptor,
}

impl Entry {
    pub(crate) fn name(&self) -> Option<&str> {
        self.descriptor.annotations.get(NAME).map(String::as_str)
    }

    /// What to call the image: its name, or the beginning of its id.
    pub(crate) fn called(&self) -> String {
        let name = self.name().and_then(|name| Reference::parse_untagged(name).ok());
        name.map_or_else(
            || self.noted_id().unwrap_or(self.descriptor.digest).hex()[..12].to_owned(),
            |name| name.familiar(),
        )
    }

    /// Present in what this engine wrote; other tools write entries without.
    pub(crate) fn noted_id(&self) -> Option<Digest> {
        Digest::parse(self.descriptor.annotations.get(ID)?).ok()
    }

    /// Of an index: the ids of its other members.
    pub(crate) fn noted_others(&self) -> impl Iterator<Item = Digest> {
        let text = self.descriptor.annotations.get(OTHERS).map_or("", String::as_str);
        text.split_whitespace().filter_map(|id| Digest::parse(id).ok())
    }

    pub(crate) fn noted_size(&self) -> Option<u64> {
        self.descriptor.annotations.get(SIZE)?.parse().ok()
    }

    pub(crate) fn repo_digests(&self) -> impl Iterator<Item = &str> {
        self.descriptor.annotations.get(REPO_DIGESTS).map_or("", String::as_str).split_whitespace()
    }
}

/// What an addition to the index says.
#[derive(Debug, Clone)]
pub(crate) struct NewImage {
    pub(crate) media_type: String,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest_size: u64,
    pub(crate) id: Digest,
    /// Of an index: the ids of its other members; its first is `id`.
    pub(crate) others: Vec<Digest>,
    pub(crate) size: u64,
    /// An index has none.
    pub(crate) platform: Option<Platform>,
    pub(crate) repo_digest: Option<Reference>,
}

impl Store {
    pub(crate) fn index_path(&self) -> PathBuf {
        self.content().join("index.json")
    }

    /// Reads the index; a missing one is empty.
    pub(crate) fn read_index(&self) -> Result<Index, StoreError> {
        let path = self.index_path();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| StoreError::damaged(&path, e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Index {
                schema_version: 2,
                media_type: None,
                manifests: Vec::new(),
                annotations: BTreeMap::new(),
            }),
            Err(e) => Err(StoreError::io("reading", &path, e)),
        }
    }

    /// Every image entry.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        Ok(self.read_index()?.manifests.into_iter().map(|descriptor| Entry { descriptor }).collect())
    }

    /// Changes the index under its lock. `change` says whether it changed anything.
    pub(crate) fn update_index<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.prepare()?;
        let lock_path = self.content().join("index.lock");
        let file = open_lock(&lock_path)?;
        lock(&file, FlockOperation::LockExclusive)
            .map_err(|e| StoreError::io("locking", &lock_path, e.into()))?;
        let mut index = self.read_index()?;
        let before = index.manifests.clone();
        let result = change(&mut index.manifests)?;
        if index.manifests != before {
            let path = self.index_path();
            let text = serde_json::to_vec(&index).map_err(|e| StoreError::damaged(&path, e))?;
            // What it leads to is called by its name before it does.
            let blobs = self.content().join("blobs/sha256");
            let known: BTreeSet<Digest> = before.iter().map(|entry| entry.digest).collect();
            let new = index.manifests.iter().any(|entry| !known.contains(&entry.digest));
            write_atomic_after(&path, &text, || if new { sync_dir(&blobs) } else { Ok(()) })?;
            sync_dir(&self.content())?;
        }
        Ok(result)
    }

    /// Adds an image under `names` (dangling if none and not there under another name); a name that
    /// another image had moves, and that image dangles if it was its last.
    pub(crate) fn add_image(&self, image: &NewImage, names: &[Reference]) -> Result<(), StoreError> {
        self.update_index(|manifests| {
            let mut fresh = Descriptor::new(&image.media_type, image.manifest_digest, image.manifest_size);
            fresh.platform.clone_from(&image.platform);
            fresh.annotations.insert(ID.to_owned(), image.id.to_string());
            if !image.others.is_empty() {
                let others: Vec<String> = image.others.iter().map(ToString::to_string).collect();
                fresh.annotations.insert(OTHERS.to_owned(), others.join(" "));
            }
            fresh.annotations.insert(SIZE.to_owned(), image.size.to_string());
            let mut digests: Vec<String> = manifests
                .iter()
                .filter(|old| old.digest == image.manifest_digest)
                .filter_map(|old| old.annotations.get(REPO_DIGESTS))
                .flat_map(|text| text.split_whitespace().map(str::to_owned))
                .collect();
            digests.extend(image.repo_digest.as_ref().map(ToString::to_string));
            digests.sort();
            digests.dedup();
            if !digests.is_empty() {
                fresh.annotations.insert(REPO_DIGESTS.to_owned(), digests.join(" "));
            }
            for old in manifests.iter_mut().filter(|old| old.digest == image.manifest_digest) {
                let name = old.annotations.remove(NAME);
                *old = fresh.clone();
                old.annotations.extend(name.map(|name| (NAME.to_owned(), name)));
            }
            for name in names {
                set_name(manifests, &name.to_string(), &fresh);
            }
            if !manifests.iter().any(|old| old.digest == image.manifest_digest) {
                manifests.push(fresh);
            }
            Ok(())
        })
    }
}

impl Store {
    /// Gives all names of one manifest, or index, to another one of the same image.
    /// One that is not listed (a member of an index) stays unlisted.
    pub(crate) fn replace_manifest(&self, old: &Digest, new: &NewImage) -> Result<(), StoreError> {
        let entries = self.entries()?;
        if !entries.iter().any(|entry| entry.descriptor.digest == *old) {
            return Ok(());
        }
        let names: Vec<Reference> = entries
            .iter()
            .filter(|entry| entry.descriptor.digest == *old)
            .filter_map(|entry| Reference::parse_untagged(entry.name()?).ok())
            .collect();
        self.add_image(new, &names)?;
        self.update_index(|manifests| {
            manifests.retain(|entry| entry.digest != *old || entry.annotations.contains_key(NAME));
            Ok(())
        })
    }
}

impl Store {
    /// Notes by what name a registry knows an image, if it is listed.
    pub(crate) fn note_repo_digest(&self, digest: &Digest, name: &Reference) -> Result<(), StoreError> {
        let name = name.to_string();
        self.update_index(|manifests| {
            for entry in manifests.iter_mut().filter(|entry| entry.digest == *digest) {
                let known = entry.annotations.entry(REPO_DIGESTS.to_owned()).or_default();
                let mut names: Vec<&str> = known.split_whitespace().chain([name.as_str()]).collect();
                names.sort_unstable();
                names.dedup();
                *known = names.join(" ");
            }
            Ok(())
        })
    }
}

/// Gives `name` to the image of `target`, taking it from whoever has it.
pub(super) fn set_name(manifests: &mut Vec<Descriptor>, name: &str, target: &Descriptor) {
    take_name(manifests, name);
    let unnamed =
        manifests.iter().position(|old| old.digest == target.digest && !old.annotations.contains_key(NAME));
    let mut named = target.clone();
    named.annotations.insert(NAME.to_owned(), name.to_owned());
    match unnamed {
        Some(at) => manifests[at] = named,
        None => manifests.push(named),
    }
}

/// Takes `name` from whoever has it; an image whose last name it was stays, dangling.
pub(super) fn take_name(manifests: &mut Vec<Descriptor>, name: &str) {
    let Some(at) = manifests.iter().position(|old| old.annotations.get(NAME).is_some_and(|n| n == name))
    else {
        return;
    };
    let digest = manifests[at].digest;
    if manifests.iter().filter(|old| old.digest == digest).count() > 1 {
        manifests.remove(at);
    } else {
        manifests[at].annotations.remove(NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(byte: u8) -> NewImage {
        let digest = Digest::from_bytes([byte; 32]);
        NewImage {
            media_type: "m".into(),
            manifest_digest: digest,
            manifest_size: 1,
            id: digest,
            others: Vec::new(),
            size: 7,
            platform: Some(Platform::host()),
            repo_digest: None,
        }
    }

    fn name(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    fn shape(store: &Store) -> Vec<(u8, Option<String>)> {
        let entries = store.entries().unwrap();
        entries.iter().map(|e| (e.descriptor.digest.as_bytes()[0], e.name().map(str::to_owned))).collect()
    }

    #[test]
    fn names_move_and_leave_a_dangling_image_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        store.add_image(&image(1), &[name("a"), name("b")]).unwrap();
        store.add_image(&image(2), &[name("a")]).unwrap();
        let full = |n: &str| Some(format!("docker.io/library/{n}:latest"));
        assert_eq!(shape(&store), [(1, full("b")), (2, full("a"))]);
        store.add_image(&image(2), &[name("b")]).unwrap();
        assert_eq!(shape(&store), [(1, None), (2, full("a")), (2, full("b"))]);
        store.add_image(&image(1), &[name("c")]).unwrap();
        assert_eq!(shape(&store), [(1, full("c")), (2, full("a")), (2, full("b"))]);
        store.add_image(&image(3), &[]).unwrap();
        store.add_image(&image(3), &[]).unwrap();
        assert_eq!(shape(&store).len(), 4);
    }

    #[test]
    fn repo_digests_gather() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let digest = Digest::from_bytes([9; 32]);
        let with = |n: &str| NewImage { repo_digest: Some(name(n).with_digest(digest)), ..image(1) };
        store.add_image(&with("a"), &[name("a")]).unwrap();
        store.add_image(&with("b"), &[name("b")]).unwrap();
        for entry in store.entries().unwrap() {
            assert_eq!(entry.repo_digests().count(), 2);
            assert_eq!((entry.noted_id(), entry.noted_size()), (Some(image(1).id), Some(7)));
        }
    }
}
