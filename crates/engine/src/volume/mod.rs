//! Volumes: named directories that outlive containers: `<root>/volumes/<name>/{record.json,_data/,shared}`.

pub mod fill;
mod options;
mod verbs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cata_spec::Name;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
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

/// Keeps a volume from being removed as long as it lives: shared by who is about to use it, exclusive for who removes.
#[derive(Debug)]
pub(crate) struct Hold {
    _dir: File,
}

/// Makes a volume unless it exists; tells which, and holds it.
///
/// The record is written last: a directory without one is half-made and is finished by the next maker.
///
/// # Errors
/// A file operation.
pub(crate) fn create(paths: &Paths, volume: &Volume) -> Result<(Made, Hold)> {
    let dir = paths.volume(&volume.name);
    let record = dir.join("record.json");
    // Whoever removes it meanwhile takes its directory away: then all begins again.
    loop {
        let mut made = Made::Before;
        if !record.exists() {
            let data = data(paths, &volume.name);
            fs::create_dir_all(&data).map_err(Error::file("create", &data))?;
            // One of several makers at a time.
            let Some(_alone) = hold(&dir, FlockOperation::LockExclusive)? else { continue };
            if !record.exists() {
                let durability = if volume.anonymous { Durability::Volatile } else { Durability::Durable };
                ledger::write(&record, volume, durability)?;
                made = Made::Now;
            }
        }
        if let Some(hold) = hold(&dir, FlockOperation::LockShared)? {
            return Ok((made, hold));
        }
    }
}

/// The right to remove a volume; `None`: it is gone, or somebody is about to use it.
pub(crate) fn hold_alone(paths: &Paths, name: &Name) -> Result<Option<Hold>> {
    hold(&paths.volume(name), FlockOperation::NonBlockingLockExclusive)
}

/// Takes the lock of a volume's directory; `None` if that is not the volume's any more, or somebody else's for now.
fn hold(dir: &Path, how: FlockOperation) -> Result<Option<Hold>> {
    let file = match File::open(dir) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", dir)(error)),
    };
    match rustix::io::retry_on_intr(|| flock(&file, how)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(Error::file("lock", dir)(errno)),
    }
    let held = file.metadata().map_err(Error::file("look at", dir))?;
    let there = fs::metadata(dir).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
    Ok(there.then_some(Hold { _dir: file }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_about_to_use_a_volume_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { root: dir.path().to_owned(), ..Paths::default() };
        let name = Name::parse("data").unwrap();
        let volume = Volume {
            name: name.clone(),
            created: 1,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            anonymous: true,
        };
        assert!(hold_alone(&paths, &name).unwrap().is_none(), "there is none yet");
        let (made, first) = create(&paths, &volume).unwrap();
        let (again, second) = create(&paths, &volume).unwrap();
        assert_eq!((made, again), (Made::Now, Made::Before));
        drop(first);
        assert!(hold_alone(&paths, &name).unwrap().is_none(), "the second has it still");
        drop(second);
        let alone = hold_alone(&paths, &name).unwrap().expect("nobody has it");
        remove(&paths, &name).unwrap();
        // Another one of the same name is not the one that was held.
        let (made, _hold) = create(&paths, &volume).unwrap();
        assert_eq!(made, Made::Now);
        drop(alone);
    }
}
