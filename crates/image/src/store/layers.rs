//! Unpacked layers: `<root>/layers/<diff-id>/diff`, each on its own, shared by images.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cata_spec::Digest;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Store;
use super::blobs::temporary_name;
use crate::error::{Error, StoreError};
use crate::layer;
use crate::layer::owners::Owners;
use crate::request::Image;

/// `layer.json` beside `diff/`: what was unpacked, and what vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The boot it was made in.
    pub(crate) boot: String,
    /// Whether a sync came after it was complete.
    pub(crate) synced: bool,
}

impl LayerRecord {
    /// A layer complete in memory, not yet for certain on disk.
    pub(crate) fn fresh(size: u64) -> Self {
        Self { size, boot: boot_id().to_owned(), synced: false }
    }

    /// See the table in [`super`].
    fn is_trusted(&self) -> bool {
        self.synced || (!self.boot.is_empty() && self.boot == boot_id())
    }
}

/// Names this boot of the kernel; empty if unknown, which vouches for nothing.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}

impl Store {
    /// The directories of an image's layers, top first, as overlay's `lowerdir` takes them. A layer that is
    /// missing, or that a power loss may have damaged, is unpacked again from its blob.
    ///
    /// # Errors
    /// A blob is missing or damaged; no space.
    pub fn layer_paths(&self, image: &Image) -> Result<Vec<PathBuf>, Error> {
        let diff_ids = image.diff_ids();
        let mut paths = Vec::with_capacity(diff_ids.len());
        for (at, diff_id) in diff_ids.iter().enumerate().rev() {
            if self.trusted_layer(diff_id).is_none() {
                let descriptor = image.manifest.layers.get(at).ok_or_else(|| {
                    let path = self.blob_path(&image.manifest_digest);
                    StoreError::damaged(&path, "fewer layers than the configuration has")
                })?;
                let _lease = self.lease()?;
                let (blob, _) = self.open_blob(&descriptor.digest)?;
                layer::unpack_blob(self, blob, &descriptor.digest, diff_id)?;
            }
            paths.push(self.layer_path(diff_id));
        }
        Ok(paths)
    }

    /// As [`Store::layer_paths`], of layers whose files belong to whom `owners` says ("outside"): the first time
    /// for these owners each is made once more, in the layer's own directory, with which it goes.
    ///
    /// # Errors
    /// As [`Store::layer_paths`]; a file of somebody who is not there.
    pub fn twin_paths(&self, image: &Image, owners: &Owners) -> Result<Vec<PathBuf>, Error> {
        self.layer_paths(image)?.into_iter().map(|diff| self.twin(&diff, owners)).collect()
    }

    fn twin(&self, diff: &Path, owners: &Owners) -> Result<PathBuf, Error> {
        let home = diff.with_file_name(format!("twin-{}", owners.key()));
        let trusted = || record_in(&home).is_some_and(|record| record.is_trusted());
        if !trusted() {
            let made = self.begin_layer()?;
            let size = layer::twin::make(diff, &made.diff(), owners)?;
            self.publish_at(made, &home, &LayerRecord::fresh(size), &trusted)?;
        }
        Ok(home.join("diff"))
    }

    /// The directory of a layer that is unpacked and can be believed: it has the files in `diff`.
    #[must_use]
    pub fn layer_home(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.trusted_layer(diff_id).map(|_| self.layers_dir().join(diff_id.hex()))
    }

    /// Where the layer's files are or would be.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers_dir().join(diff_id.hex()).join("diff")
    }

    /// The layer's record, if the layer is there and can be believed.
    pub(crate) fn trusted_layer(&self, diff_id: &Digest) -> Option<LayerRecord> {
        self.layer_record(diff_id).filter(LayerRecord::is_trusted)
    }

    /// Bytes of the layer's files; `None` while it is not unpacked.
    #[must_use]
    pub fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        Some(self.layer_record(diff_id)?.size)
    }

    /// As [`Store::layer_size`], with what was made of the layer for containers with other ids.
    #[must_use]
    pub fn layer_usage(&self, diff_id: &Digest) -> Option<u64> {
        let own = self.layer_size(diff_id)?;
        let home = self.layers_dir().join(diff_id.hex());
        let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
        let twins = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"twin-"));
        Some(own + twins.filter_map(|twin| record_in(&twin.path())).map(|record| record.size).sum::<u64>())
    }

    fn layer_record(&self, diff_id: &Digest) -> Option<LayerRecord> {
        record_in(&self.layers_dir().join(diff_id.hex()))
    }

    /// Makes an empty layer under a temporary name.
    pub(crate) fn begin_layer(&self) -> Result<Unfinished, StoreError> {
        let path = self.ingest().join(temporary_name("layer"));
        let diff = path.join("diff");
        std::fs::create_dir(&path)
            .and_then(|()| std::fs::create_dir(&diff))
            .map_err(|e| StoreError::io("making", &diff, e))?;
        Ok(Unfinished { path, kept: false })
    }

    /// Makes a complete layer visible. If another process was faster, its work is kept.
    pub(crate) fn publish_layer(
        &self,
        made: Unfinished,
        diff_id: &Digest,
        record: &LayerRecord,
    ) -> Result<(), StoreError> {
        let to = self.layers_dir().join(diff_id.hex());
        self.publish_at(made, &to, record, &|| self.trusted_layer(diff_id).is_some())
    }

    fn publish_at(
        &self,
        mut made: Unfinished,
        to: &Path,
        record: &LayerRecord,
        trusted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        made.describe(record)?;
        loop {
            match rename_new(&made.path, to) {
                Ok(()) => {
                    made.kept = true;
                    return Ok(());
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    if trusted() {
                        return Ok(());
                    }
                    self.set_aside(to)?;
                }
                Err(errno) => return Err(StoreError::io("naming", to, errno.into())),
            }
        }
    }

    /// Makes a complete layer that lies elsewhere visible, and leaves a link to it there. The link is made first, in the
    /// layer's place, where it leads to itself; then both change places, so that there is no moment at which `home`
    /// leads nowhere. If another process was faster, `home` stays as it is.
    pub(crate) fn take_layer(
        &self,
        home: &Path,
        diff_id: &Digest,
        record: &LayerRecord,
    ) -> Result<(), StoreError> {
        self.prepare()?;
        let dir = self.layers_dir();
        let to = dir.join(diff_id.hex());
        Unfinished { path: home.to_owned(), kept: true }.describe(record)?;
        // One at a time: of two who took the same layer, one would take back what the other had given.
        let alone = File::open(&dir).map_err(|e| StoreError::io("opening", &dir, e))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&alone, FlockOperation::LockExclusive))
            .map_err(|errno| StoreError::io("locking", &dir, errno.into()))?;
        loop {
            if self.trusted_layer(diff_id).is_some() {
                return Ok(());
            }
            match rustix::fs::symlink(&to, &to) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    self.set_aside(&to)?;
                    continue;
                }
                Err(errno) => return Err(StoreError::io("linking", &to, errno.into())),
            }
            match rustix::fs::renameat_with(CWD, home, CWD, &to, RenameFlags::EXCHANGE) {
                Ok(()) => return Ok(()),
                // Somebody who unpacked it has set the link aside.
                Err(Errno::NOENT) if home.exists() => {}
                Err(errno) => {
                    let _ = std::fs::remove_file(&to);
                    return Err(StoreError::io("moving", home, errno.into()));
                }
            }
        }
    }

    /// What nobody believes leaves a layer's place.
    fn set_aside(&self, to: &Path) -> Result<(), StoreError> {
        let aside = Unfinished { path: self.ingest().join(temporary_name("stale")), kept: false };
        match rename_new(to, &aside.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("moving", to, errno.into())),
        }
    }

    /// Exchanges a layer for a complete one; what was there goes with `made`. Nobody may have it mounted.
    pub(crate) fn replace_layer(
        &self,
        made: &Unfinished,
        diff_id: &Digest,
        record: &LayerRecord,
    ) -> Result<(), StoreError> {
        made.describe(record)?;
        let to = self.layers_dir().join(diff_id.hex());
        rustix::fs::renameat_with(CWD, &made.path, CWD, &to, RenameFlags::EXCHANGE)
            .map_err(|errno| StoreError::io("exchanging", &to, errno.into()))
    }

    /// Whether a layer directory, as [`Store::layer_paths`] or [`Store::twin_paths`] gave it, is there and can be believed. Of one that is
    /// kept elsewhere, only whether it is there.
    #[must_use]
    pub fn believes(&self, layer: &Path) -> bool {
        if !layer.starts_with(self.layers_dir()) {
            return layer.exists();
        }
        layer.parent().and_then(record_in).is_some_and(|record| record.is_trusted())
    }

    /// One `syncfs` for all of them, after which they are believed in any boot.
    pub(crate) fn seal_layers(&self, diff_ids: &[Digest]) -> Result<(), StoreError> {
        let fresh: Vec<(&Digest, LayerRecord)> = diff_ids
            .iter()
            .filter_map(|id| Some((id, self.layer_record(id)?)))
            .filter(|(_, record)| record.is_trusted() && !record.synced)
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let dir = self.layers_dir();
        let io = |e: std::io::Error| StoreError::io("syncing", &dir, e);
        let handle = File::open(&dir).map_err(io)?;
        rustix::fs::syncfs(handle.as_fd()).map_err(|errno| io(errno.into()))?;
        for (diff_id, record) in fresh {
            let place = dir.join(diff_id.hex());
            let (new, path) = (place.join(temporary_name("record")), place.join("layer.json"));
            let text = serde_json::to_vec(&LayerRecord { synced: true, ..record })
                .map_err(|e| StoreError::damaged(&path, e))?;
            // No fsync: until this rename is on disk the older record stands, which claims less.
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &path))
                .map_err(|e| StoreError::io("writing", &path, e))?;
        }
        Ok(())
    }
}

fn record_in(home: &Path) -> Option<LayerRecord> {
    serde_json::from_slice(&std::fs::read(home.join("layer.json")).ok()?).ok()
}

fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// A layer in the making; its tree is removed unless it was published.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Unfinished {
    pub(crate) fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }

    fn describe(&self, record: &LayerRecord) -> Result<(), StoreError> {
        let file = self.path.join("layer.json");
        let text = serde_json::to_vec(record).map_err(|e| StoreError::damaged(&file, e))?;
        std::fs::write(&file, text).map_err(|e| StoreError::io("writing", &file, e))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
