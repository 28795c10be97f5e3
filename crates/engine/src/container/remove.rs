//! `rm`: out of the listing at once, files after.

use std::fs;
use std::io;
use std::time::Duration;

use cata_sandbox::launch::Undo;
use cata_sandbox::status::StatusKind;
use cata_spec::ContainerId;

use crate::container::live::Owner;
use crate::container::ranges;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
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
    /// Removes a container; with `force` also one whose record is damaged.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; [`Error::State`] when it runs and `force` is not given.
    pub fn remove(&self, container: &str, options: RemoveOptions) -> Result<()> {
        let record = match self.find(container) {
            Err(Error::Record { .. }) if options.force => {
                return self.remove_damaged(&self.find_id(container)?);
            }
            found => found?,
        };
        let id = &record.id;
        let live = self.paths.live(id);
        let lock = loop {
            let lock = match self.lock(id) {
                // --rm was faster.
                Err(Error::NoContainer(_)) => return Ok(()),
                lock => lock?,
            };
            // Nobody can start it while we hold the lock; until we had it, anybody could.
            if !cata_sandbox::status::alive(&live) {
                break lock;
            }
            // One whose maker was killed leaves by itself, unless the container runs after all.
            if !options.force
                && let (status, Owner::Alive) = self.settled(id)?
            {
                let state = if status.status == StatusKind::Paused { "paused" } else { "running" };
                return Err(Error::State {
                    what: format!(
                        "cannot remove container \"{}\": container is {state}: stop the container before removing or force remove",
                        record.name
                    ),
                    hint: Some(format!("`cata stop {0}` first, or `cata rm -f {0}`", record.name)),
                });
            }
            // Held on to: its supervisor needs no lock of ours to end.
            self.kill_and_wait(id, Duration::from_secs(10))?;
            if !cata_sandbox::status::alive(&live) {
                break lock;
            }
        };
        self.recover_lost(id)?;
        self.discard(&record, options.volumes)?;
        drop(lock);
        Ok(())
    }

    /// What can be taken away of a container that nobody knows any more: its process, its names, its files.
    fn remove_damaged(&self, id: &ContainerId) -> Result<()> {
        let lock = match self.lock(id) {
            Err(Error::NoContainer(_)) => return Ok(()),
            lock => lock?,
        };
        self.kill_and_wait(id, Duration::from_secs(10))?;
        self.recover_lost(id)?;
        self.release_network(id)?;
        self.release_names(id)?;
        self.release_users(id)?;
        self.remove_files(id)?;
        drop(lock);
        Ok(())
    }

    /// Takes a container that does not run out of the world. Every step may be repeated.
    ///
    /// The rename is the moment it is gone. Before it, the name must still lead to it, or who is killed between
    /// leaves a container that can be listed and not named; after it, a name left behind is free to be taken.
    pub(crate) fn discard(&self, record: &Record, volumes: bool) -> Result<()> {
        self.hide_files(&record.id)?;
        self.tell_container(record, "destroy", &[]);
        self.release_names(&record.id)?;
        if record.users.is_some() {
            self.release_users(&record.id)?;
        }
        if volumes {
            for name in record.anonymous_volumes() {
                if volume::shared(&self.paths, name).exists() && !self.volume_users(name)?.is_empty() {
                    continue;
                }
                match volume::remove(&self.paths, name) {
                    Ok(()) => self.tell_volume(name, "destroy"),
                    Err(Error::NoVolume(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.remove_files(&record.id)
    }

    /// Every name that leads to it: a killed `rename` leaves two.
    fn release_names(&self, id: &ContainerId) -> Result<()> {
        let steps = [Undo::UnlinkPointing { directory: self.paths.names(), text: id.to_string() }];
        match cata_sandbox::undo::perform(&steps).pop() {
            Some(error) => {
                Err(Error::file("remove the names of", id.as_str())(io::Error::other(error.to_string())))
            }
            None => Ok(()),
        }
    }

    fn release_users(&self, id: &ContainerId) -> Result<()> {
        match cata_sandbox::undo::perform(&[ranges::release(&self.paths, id)]).pop() {
            Some(error) => {
                Err(Error::file("give back the ids of", id.as_str())(io::Error::other(error.to_string())))
            }
            None => Ok(()),
        }
    }

    /// Out of every listing at once.
    fn hide_files(&self, id: &ContainerId) -> Result<()> {
        let dir = self.paths.container(id);
        match fs::rename(&dir, self.paths.removed().join(id.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", dir)(error)),
            _ => Ok(()),
        }
    }

    fn remove_files(&self, id: &ContainerId) -> Result<()> {
        self.hide_files(id)?;
        let live = self.paths.live(id);
        let away = self.paths.removed().join(id.as_str());
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
