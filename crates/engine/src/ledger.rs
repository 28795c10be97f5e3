//! Reading and writing records: whole files, replaced by rename.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Whether a record must survive a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// fsync of the file and of its directory before the call returns.
    Durable,
    /// Only the name is atomic. For what a reboot forgets anyway (`--rm`): a half-written record is found
    /// and removed by the next sweep.
    Volatile,
}

/// Writes `value` to `path` as JSON by rename.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    write_bytes(path, &text, durability)
}

/// Writes bytes to `path` by rename.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let temporary = path.with_extension("new");
    let result = (|| -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::Durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if let (Durability::Durable, Some(parent)) = (durability, path.parent()) {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    })();
    result.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::File { op: "write", path: path.to_owned(), source }
    })
}

/// Reads a record; `None` when the file does not exist.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Record { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { op: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_then_read_returns_the_same_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        for durability in [Durability::Volatile, Durability::Durable] {
            write(&path, &vec![1, 2, 3], durability).unwrap();
            assert_eq!(read::<Vec<i32>>(&path).unwrap(), Some(vec![1, 2, 3]));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn read_of_a_damaged_record_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        fs::write(&path, b"{").unwrap();
        let text = read::<Vec<i32>>(&path).unwrap_err().to_string();
        assert!(text.contains("record.json"), "{text}");
    }
}
