//! The lease: who adds holds it shared, who deletes needs it alone.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

use super::Store;
use crate::error::StoreError;

/// Keeps everything in the store from being deleted until it is dropped, or the process dies.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Store {
    /// While it is held, nothing is deleted from the store. Waits for a deletion under way, which is short.
    /// Hold it from resolving an image until the container's record names it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn lease(&self) -> Result<Lease, StoreError> {
        self.prepare()?;
        let file = self.lease_file()?;
        lock(&file, FlockOperation::LockShared)
            .map_err(|e| StoreError::io("locking", &self.content().join("lease.lock"), e.into()))?;
        Ok(Lease { _file: file })
    }

    /// The right to delete; `None` while somebody adds.
    pub(crate) fn exclusive_lease(&self) -> Result<Option<Lease>, StoreError> {
        self.prepare()?;
        let file = self.lease_file()?;
        match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lease { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(StoreError::io("locking", &self.content().join("lease.lock"), errno.into())),
        }
    }

    fn lease_file(&self) -> Result<File, StoreError> {
        open_lock(&self.content().join("lease.lock"))
    }
}

/// Opens a lock file, making it if need be.
pub(crate) fn open_lock(path: &std::path::Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| StoreError::io("opening", path, e))
}

/// Takes a lock, waiting for it, signals notwithstanding.
pub(crate) fn lock(file: &File, operation: FlockOperation) -> Result<(), rustix::io::Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), operation))
}
