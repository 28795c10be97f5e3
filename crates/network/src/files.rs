//! Documents and locks of networks on disk.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cata_spec::Name;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::Serialize;

use crate::Error;

/// How a network's lock is held.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lock {
    /// By who connects: the network stays.
    Shared,
    /// By who makes or removes.
    Exclusive,
}

/// Locks a network for as long as the descriptor is open.
pub(crate) fn lock(directory: &Path, how: Lock, name: &Name) -> Result<OwnedFd, Error> {
    let operation = match how {
        Lock::Shared => FlockOperation::LockShared,
        Lock::Exclusive => FlockOperation::LockExclusive,
    };
    let path = directory.join("lock");
    let locked = lock_file(&path, operation).map_err(|error| match error {
        Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::UnknownNetwork(name.to_string())
        }
        error => error,
    })?;
    // Removed while we waited.
    if path.exists() { Ok(locked) } else { Err(Error::UnknownNetwork(name.to_string())) }
}

/// How sure a write has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It survives the process: what it describes does not survive the kernel.
    Page,
    /// It survives the machine.
    Disk,
}

/// Writes a document beside its place and moves it there.
pub(crate) fn write_json(path: &Path, document: &impl Serialize, how: Durability) -> Result<(), Error> {
    let text =
        serde_json::to_vec(document).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    let new = path.with_extension("new");
    let written = fs::write(&new, text).and_then(|()| match how {
        Durability::Disk => File::open(&new)?.sync_all(),
        Durability::Page => Ok(()),
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(|source| Error::file("write", path, source))
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|source| Error::file("read", path, source))?;
    serde_json::from_slice(&text).map_err(|source| Error::Record { path: path.to_owned(), source })
}

/// Waits for a lock of any kind.
pub(crate) fn lock_file(path: &Path, operation: FlockOperation) -> Result<OwnedFd, Error> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
    // A network's own lock comes and goes with its directory; only the one of all networks is made here.
    if path.file_name() == Some(OsStr::new(".lock")) {
        flags |= OFlags::CREATE;
    }
    let failed = |errno| Error::file("lock", path, errno);
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).map_err(failed)?;
    Ok(file)
}
