//! `rm`: out of the listing at once, files after.

use std::fs;
use std::io;
use std::time::Duration;

use cata_sandbox::status::StatusKind;

use crate::container::live::Owner;
use crate::container::names;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{MountKind, Record};
use crate::volume;

/// How `rm` goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveOptions {
    /// `-f`: kill it first.
    pub force: bool,
    /// `-v`: its anonymous volumes too.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container; returns its record.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; [`Error::State`] when it runs and `force` is not given.
    pub fn remove(&self, container: &str, options: RemoveOptions) -> Result<Record> {
        let record = self.find(container)?;
        let id = &record.id;
        let (status, owner) = self.status(id)?;
        if owner == Owner::Alive {
            if !options.force {
                let state = if status.status == StatusKind::Paused { "paused" } else { "running" };
                return Err(Error::State {
                    what: format!(
                        "cannot remove container \"{}\": container is {state}: stop the container before removing or force remove",
                        record.name
                    ),
                    hint: Some(format!("`cata stop {0}` first, or `cata rm -f {0}`", record.name)),
                });
            }
            self.kill_and_wait(id, Duration::from_secs(10))?;
        }
        let lock = match self.lock(id) {
            // --rm was faster.
            Err(Error::NoContainer(_)) => return Ok(record),
            lock => lock?,
        };
        self.recover_lost(id)?;
        self.discard(&record, options.volumes)?;
        drop(lock);
        Ok(record)
    }

    /// Takes a container that does not run out of the world. Every step may be repeated.
    pub(crate) fn discard(&self, record: &Record, volumes: bool) -> Result<()> {
        names::release(&self.paths, &record.name, &record.id)?;
        let dir = self.paths.container(&record.id);
        let away = self.paths.removed().join(record.id.as_str());
        match fs::rename(&dir, &away) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("remove", dir)(error)),
        }
        if volumes {
            for name in anonymous_volumes(record) {
                match volume::remove(&self.paths, name) {
                    Ok(()) | Err(Error::NoVolume(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let live = self.paths.live(&record.id);
        for tree in [live, away] {
            match fs::remove_dir_all(&tree) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("remove", tree)(error)),
            }
        }
        Ok(())
    }
}

/// The volumes that were made for this container alone.
pub(crate) fn anonymous_volumes(record: &Record) -> impl Iterator<Item = &cata_spec::Name> {
    record.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Volume { name, anonymous: true, .. } => Some(name),
        _ => None,
    })
}
