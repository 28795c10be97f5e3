//! Volumes: named directories that outlive containers: `<root>/volumes/<name>/{record.json,_data/,shared}`.

pub mod fill;
mod options;
mod verbs;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cata_spec::Name;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::{self, Durability};
use crate::paths::Paths;

/// A volume's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name; 64 hexadecimal characters for an anonymous one.
    pub name: Name,
    /// Nanoseconds since the epoch.
    pub created: u64,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
    /// Made for one container.
    pub anonymous: bool,
}

impl Volume {
    /// Where its files are, if that is a directory elsewhere.
    #[must_use]
    pub fn elsewhere(&self) -> Option<PathBuf> {
        options::device(&self.options).ok().flatten()
    }
}

/// Where the files of a volume of this name are, or will be: one that is made by its use has them in itself.
#[must_use]
pub fn files(paths: &Paths, name: &Name) -> PathBuf {
    inspect(paths, name.as_str())
        .ok()
        .and_then(|volume| volume.elsewhere())
        .unwrap_or_else(|| data(paths, name))
}

/// Whether there is something at `source`, in a volume, without leaving it.
pub(crate) fn reaches(paths: &Paths, name: &Name, source: &Path) -> bool {
    if source == data(paths, name) {
        return source.exists();
    }
    let files = files(paths, name);
    let Ok(rest) = source.strip_prefix(&files) else { return false };
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let root = cata_sys::path::Root::open_trusted(&files);
    root.and_then(|root| root.open(rest, rustix::fs::OFlags::PATH)).is_ok()
}

/// Where a volume has files of its own.
#[must_use]
pub fn data(paths: &Paths, name: &Name) -> PathBuf {
    paths.volume(name).join("_data")
}

/// A file that is there once a container has a volume that was made for another one: its end is not the volume's.
#[must_use]
pub fn shared(paths: &Paths, name: &Name) -> PathBuf {
    paths.volume(name).join("shared")
}

/// Makes a volume unless it exists; tells which.
///
/// The record is written last: a directory without one is half-made and is finished by the next maker.
///
/// # Errors
/// A file operation.
pub fn create(paths: &Paths, volume: &Volume) -> Result<Made> {
    let dir = paths.volume(&volume.name);
    if dir.join("record.json").exists() {
        return Ok(Made::Before);
    }
    let data = data(paths, &volume.name);
    fs::create_dir_all(&data).map_err(Error::file("create", &data))?;
    let durability = if volume.anonymous { Durability::Volatile } else { Durability::Durable };
    ledger::write(&dir.join("record.json"), volume, durability)?;
    Ok(Made::Now)
}

/// Whether [`create`] made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// By this call.
    Now,
    /// Earlier.
    Before,
}

/// One volume.
///
/// # Errors
/// [`Error::NoVolume`].
pub fn inspect(paths: &Paths, name: &str) -> Result<Volume> {
    let missing = || Error::NoVolume(name.to_owned());
    let parsed = Name::parse(name).map_err(|_| missing())?;
    ledger::read(&paths.volume(&parsed).join("record.json"))?.ok_or_else(missing)
}

/// All volumes by name; those whose record is damaged are handed to `damaged`, so that one hides no others.
///
/// # Errors
/// A file operation.
pub fn list(paths: &Paths, mut damaged: impl FnMut(&Path, &Error)) -> Result<Vec<Volume>> {
    let dir = paths.volumes();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", dir)(error)),
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", &dir))?;
        match ledger::read::<Volume>(&entry.path().join("record.json")) {
            Ok(volume) => list.extend(volume),
            Err(error @ Error::Record { .. }) => damaged(&entry.path(), &error),
            // A file that somebody put here is no volume.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(error),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Takes a volume out of the listing at once, then removes its files.
///
/// # Errors
/// [`Error::NoVolume`], or a file operation.
pub fn remove(paths: &Paths, name: &Name) -> Result<()> {
    let dir = paths.volume(name);
    let removed = paths.removed();
    fs::create_dir_all(&removed).map_err(Error::file("create", &removed))?;
    let away = removed.join(format!("volume-{name}"));
    let _ = fs::remove_dir_all(&away);
    match fs::rename(&dir, &away) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoVolume(name.to_string()));
        }
        Err(error) => return Err(Error::file("remove", dir)(error)),
    }
    fs::remove_dir_all(&away).map_err(Error::file("remove", away))
}
