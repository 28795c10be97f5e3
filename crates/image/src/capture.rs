//! A layer of an overlay's upper directory: as a blob, and, if the directory is given away, unpacked too.
//!
//! The blob is plain tar. Compressing is what costs most, and most layers never leave the machine they were
//! made on: `push` compresses then (see `recompress`).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cata_spec::Digest;
use cata_spec::image::{Descriptor, media_type};

use crate::error::{Error, LayerError, StoreError};
use crate::layer::diff::{self, Written};
use crate::layer::owners::Owners;
use crate::layer::unpack_blob;
use crate::store::{Hasher, LayerRecord, Store, sha256};

/// Bytes gathered before they are hashed and written.
const BUFFER: usize = 1 << 20;

/// A captured layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The digest of the tar, which is the blob's too.
    pub diff_id: Digest,
    /// The blob.
    pub descriptor: Descriptor,
    /// What is in it; no entries: nothing was changed, and no layer is needed.
    pub written: Written,
}

/// A captured layer that is not yet a blob: whoever drops it gives it up.
#[derive(Debug)]
pub struct Unnamed {
    file: File,
    path: PathBuf,
    captured: Captured,
    synced: bool,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Once it is a blob nothing has this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Captured {
    /// One that was captured before; `bytes` of the tar, `size` of the files in it.
    #[must_use]
    pub fn known(diff_id: Digest, bytes: u64, size: u64) -> Self {
        let descriptor = Descriptor::new(media_type::OCI_LAYER, diff_id, bytes);
        Self { diff_id, descriptor, written: Written { size, entries: 1 } }
    }
}

impl Store {
    /// Whether a captured layer is there as it was captured: the plain blob, and unpacked.
    #[must_use]
    pub fn has_plain_layer(&self, diff_id: &Digest) -> bool {
        self.has_blob(diff_id) && self.trusted_layer(diff_id).is_some()
    }

    /// Writes what an upper directory changes as a plain layer into the store. The directory stays as it is;
    /// it should not change meanwhile.
    ///
    /// # Errors
    /// Something cannot be read; no space.
    pub fn capture(&self, upper: &Path) -> Result<Captured, Error> {
        self.capture_without(upper, &|_| false, &Owners::default())
    }

    /// As [`Store::capture`], without what `left_out` says of paths relative to the root, and with the ids that
    /// are "inside" for `owners`.
    ///
    /// # Errors
    /// As [`Store::capture`].
    pub fn capture_without(
        &self,
        upper: &Path,
        left_out: &dyn Fn(&Path) -> bool,
        owners: &Owners,
    ) -> Result<Captured, Error> {
        let _lease = self.lease()?;
        self.capture_held(upper, left_out, owners)
    }

    /// As [`Store::capture_without`], for who holds the lease already.
    pub(crate) fn capture_held(
        &self,
        upper: &Path,
        left_out: &dyn Fn(&Path) -> bool,
        owners: &Owners,
    ) -> Result<Captured, Error> {
        let captured = self.capture_unnamed(upper, left_out, owners, &|| false)?;
        self.name_captured(&captured)
    }

    /// As [`Store::capture`], while nobody knows yet whether the layer will be needed: all but the name. Hold the lease until
    /// it has one.
    ///
    /// # Errors
    /// As [`Store::capture`]; it ends early when `stop` says so.
    pub fn capture_ahead(&self, upper: &Path, stop: &dyn Fn() -> bool) -> Result<Unnamed, Error> {
        let mut ahead = self.capture_unnamed(upper, &|_| false, &Owners::default(), stop)?;
        if !stop() {
            ahead.file.sync_data().map_err(|e| StoreError::io("syncing", &ahead.path, e))?;
            ahead.synced = true;
        }
        Ok(ahead)
    }

    fn capture_unnamed(
        &self,
        upper: &Path,
        left_out: &dyn Fn(&Path) -> bool,
        owners: &Owners,
        stop: &dyn Fn() -> bool,
    ) -> Result<Unnamed, Error> {
        let (file, path) = self.ingest_file("capture")?;
        let nothing = Captured::known(sha256(b""), 0, 0);
        let mut unnamed = Unnamed { file, path, captured: nothing, synced: false };
        let (file, path) = (&unnamed.file, &unnamed.path);
        let buffer = Vec::with_capacity(BUFFER);
        let mut sink = Sink { file, hasher: Hasher::new(), size: 0, buffer, stop };
        let written =
            diff::write_layer_without(upper, left_out, owners, &mut sink).map_err(|error| match error {
                LayerError::Write(source) => Error::Store(StoreError::io("writing", path, source)),
                other => other.into(),
            })?;
        let diff_id = sink.hasher.finish();
        let descriptor = Descriptor::new(media_type::OCI_LAYER, diff_id, sink.size);
        unnamed.captured = Captured { diff_id, descriptor, written };
        Ok(unnamed)
    }

    /// Makes it a blob.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn name_captured(&self, unnamed: &Unnamed) -> Result<Captured, Error> {
        let captured = unnamed.captured.clone();
        match self.has_blob(&captured.diff_id) {
            true => {}
            false if unnamed.synced => self.name_blob(&unnamed.path, &captured.diff_id)?,
            false => self.publish_blob(&unnamed.file, &unnamed.path, &captured.diff_id)?,
        }
        Ok(captured)
    }

    /// Unpacks a captured layer for the images that will have it.
    ///
    /// # Errors
    /// The blob is gone; no space.
    pub fn unpack_captured(&self, captured: &Captured) -> Result<(), Error> {
        let _lease = self.lease()?;
        let (blob, _) = self.open_blob(&captured.diff_id)?;
        unpack_blob(self, blob, &captured.diff_id, &captured.diff_id)
    }

    /// Makes `home`, a directory that holds the captured upper directory as `diff`, the store's unpacked layer
    /// and leaves a symbolic link to it in its place, at one moment: whoever has it mounted, or mounts it by the old path,
    /// sees no difference. If the store has the layer, nothing is moved.
    ///
    /// # Errors
    /// `home` is on another file system; damage.
    pub fn adopt_layer(&self, home: &Path, captured: &Captured) -> Result<(), Error> {
        let _lease = self.lease()?;
        if self.trusted_layer(&captured.diff_id).is_some() {
            return Ok(());
        }
        let record = LayerRecord::fresh(captured.written.size);
        Ok(self.take_layer(home, &captured.diff_id, &record)?)
    }

    /// Whether the layer is unpacked and can be believed.
    #[must_use]
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.trusted_layer(diff_id).is_some()
    }
}

/// Hashes and writes in large pieces.
struct Sink<'f> {
    file: &'f File,
    hasher: Hasher,
    size: u64,
    buffer: Vec<u8>,
    stop: &'f dyn Fn() -> bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if (self.stop)() {
            return Err(io::Error::other("it is not needed any more"));
        }
        self.file.write_all(&self.buffer)?;
        self.hasher.update(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
