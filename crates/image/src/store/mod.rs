//! The store on disk: an OCI image layout and unpacked layers.
//!
//! What guards what:
//! - A **blob** is written in `ingest/`, verified, fsynced, then renamed to its digest: one that is visible
//!   is whole, also after a power loss.
//! - **`index.json`** is replaced by rename under `index.lock`, which is held only for that long.
//! - A **layer** is unpacked under a temporary name and renamed without fsync; its `layer.json` names the
//!   boot it was made in. In that boot the page cache vouches for it. It is marked `synced` after a
//!   `syncfs`; one that is neither synced nor of this boot is unpacked again from its blob.
//! - The **lease** (`lease.lock`, shared by everything that adds, exclusive for what deletes) keeps blobs
//!   and layers that a transfer has found or made from being deleted before its image is named. Deleting
//!   never waits for it: what cannot be deleted now is left for the next chance.

mod blobs;
pub mod check;
mod garbage;
mod index;
mod layers;
mod lease;
mod list;
mod remove;
mod resolve;

use std::path::{Path, PathBuf};

pub(crate) use blobs::{Hasher, hash_file, sha256, sync_dir, temporary_name, write_atomic};
pub use garbage::Collected;
pub(crate) use index::NewImage;
pub(crate) use layers::{LayerRecord, Unfinished};
pub use lease::Lease;
pub use remove::{Unknown, User};

use crate::error::StoreError;

/// The images of one root directory. Cheap to open and to clone; all state is on disk.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store of `root`; nothing is read or made until it is needed.
    #[must_use]
    pub fn open(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// What blobs became when they were compressed.
    pub(crate) fn notes_dir(&self) -> PathBuf {
        self.root.join("compressed")
    }

    pub(crate) fn pins_dir(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// Makes the directories and the layout's marker, if missing.
    pub(crate) fn prepare(&self) -> Result<(), StoreError> {
        let blobs = self.content().join("blobs/sha256");
        for dir in [&blobs, &self.ingest(), &self.layers_dir()] {
            if dir.is_dir() {
                continue;
            }
            std::fs::create_dir_all(dir).map_err(|e| StoreError::io("making", dir, e))?;
            if *dir == self.ingest() {
                // Layers are unpacked here. Where the file system does not know the wish, it is only slower.
                let _ = std::fs::File::open(dir).map(cata_sys::directory::spread);
            }
        }
        let marker = self.content().join("oci-layout");
        if !marker.exists() {
            write_atomic(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(())
    }
}
