//! Deleting what nothing refers to, and what processes that died left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cata_spec::Digest;
use cata_spec::image::ManifestDocument;

use super::blobs::TEMPORARY;
use super::{Lease, Store};
use crate::error::{Error, StoreError};

/// A partial download is kept for so long for a later pull to go on with.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Unpacked layers, by diff-id.
    pub layers: Vec<Digest>,
    /// Bytes of the blobs.
    pub bytes: u64,
}

impl Store {
    /// Deletes blobs and layers that no image refers to, and left-overs. `None`: somebody is adding to the
    /// store right now; what is garbage stays until the next time.
    ///
    /// # Errors
    /// The index or a manifest cannot be read: then nothing is deleted.
    pub fn collect_garbage(&self) -> Result<Option<Collected>, Error> {
        let Some(lease) = self.exclusive_lease()? else { return Ok(None) };
        let (blobs, mut layers) = self.referenced()?;
        layers.extend(digests_in(&self.pins_dir()).into_iter().map(|(digest, _)| digest));
        self.sweep_leftovers(&lease);
        let mut collected = Collected::default();
        for (digest, path) in digests_in(&self.layers_dir()) {
            if !layers.contains(&digest) {
                // Out of sight first: a half-deleted tree must not be taken for a layer.
                let aside = self.ingest().join(super::temporary_name("dead"));
                if std::fs::rename(&path, &aside).is_ok() && std::fs::remove_dir_all(&aside).is_ok() {
                    collected.layers.push(digest);
                }
            }
        }
        for (digest, path) in digests_in(&self.content().join("blobs/sha256")) {
            if !blobs.contains(&digest) {
                let size = path.metadata().map_or(0, |m| m.len());
                if std::fs::remove_file(&path).is_ok() {
                    collected.bytes += size;
                    collected.blobs.push(digest);
                }
            }
        }
        self.sweep_notes();
        Ok(Some(collected))
    }

    /// Keeps an unpacked layer though no image has it: a build goes on from there. Until it is unpinned.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn pin_layer(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let dir = self.pins_dir();
        let path = dir.join(diff_id.hex());
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, b""))
            .map_err(|e| StoreError::io("pinning", &path, e))
    }

    /// Lets go of every pinned layer but those to `keep`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn unpin_layers(&self, keep: impl Fn(&Digest) -> bool) -> Result<(), StoreError> {
        for (digest, path) in digests_in(&self.pins_dir()) {
            if !keep(&digest) {
                std::fs::remove_file(&path).map_err(|e| StoreError::io("unpinning", &path, e))?;
            }
        }
        Ok(())
    }

    /// Removes what a process that died left half-made, if nobody else is at work.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the store cannot be locked.
    pub fn clear_leftovers(&self) -> Result<(), StoreError> {
        if let Some(lease) = self.exclusive_lease()? {
            self.sweep_leftovers(&lease);
        }
        Ok(())
    }

    /// With the lease in one hand alone, whatever bears a temporary name has no owner.
    fn sweep_leftovers(&self, _alone: &Lease) {
        let Ok(entries) = std::fs::read_dir(self.ingest()) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let stale = || {
                entry
                    .metadata()
                    .and_then(|m| m.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > PARTIAL_KEPT))
            };
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) || stale() {
                let _ =
                    if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            }
        }
    }

    /// Blobs and diff-ids that the index leads to.
    fn referenced(&self) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>), StoreError> {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        let mut waiting: Vec<Digest> = self.entries()?.iter().map(|entry| entry.descriptor.digest).collect();
        while let Some(digest) = waiting.pop() {
            if !blobs.insert(digest) {
                continue;
            }
            let bytes = match self.read_blob(&digest) {
                Ok(bytes) => bytes,
                // Nothing to protect: what it led to has to be pulled again anyway.
                Err(StoreError::MissingBlob(_)) => continue,
                Err(error) => return Err(error),
            };
            let path = self.blob_path(&digest);
            match ManifestDocument::parse(&bytes, None).map_err(|e| StoreError::damaged(&path, e))? {
                ManifestDocument::Index(index) => waiting.extend(index.manifests.iter().map(|m| m.digest)),
                ManifestDocument::Image(manifest) => {
                    blobs.insert(manifest.config.digest);
                    blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
                    match self.config(&manifest.config.digest) {
                        Ok(config) => layers.extend(config.rootfs.diff_ids),
                        Err(StoreError::MissingBlob(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok((blobs, layers))
    }
}

/// Entries whose names are digests.
pub(super) fn digests_in(dir: &Path) -> Vec<(Digest, std::path::PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((Digest::from_hex(entry.file_name().to_str()?)?, entry.path())))
        .collect()
}
