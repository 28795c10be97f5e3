//! What killed processes left: half-made containers, half-removed ones, and those whose supervisor is gone.
//!
//! Every command looks (two directories that are nearly always empty, and one lock a running container);
//! nothing is taken from anybody alive, because makers hold a lock on what they make.

use std::fs;
use std::io;
use std::time::Duration;

use cata_sandbox::launch::Undo;
use cata_sandbox::recover::{self, Recovered};
use cata_sandbox::{status, undo};
use cata_spec::ContainerId;
use rustix::fs::{FlockOperation, flock};

use crate::container::live::STARTED_FILE;
use crate::container::{names, ranges};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger;
use crate::paths::ContainerDir;
use crate::record::Record;
use crate::volume;

impl Engine {
    /// Removes what dead processes left half-made or half-removed, and ends what their deaths ended.
    ///
    /// # Errors
    /// A directory that cannot be read. What cannot be removed now is left for the next time.
    pub fn sweep(&self) -> Result<()> {
        for id in ids_in(&self.paths.creating())? {
            self.sweep_creation(&id);
        }
        for entry in entries(&self.paths.removed())? {
            let path = self.paths.removed().join(&entry);
            let id = ContainerId::parse(&entry).ok();
            // A supervisor may be at it this moment.
            if id.as_ref().is_some_and(|id| status::alive(&self.paths.live(id))) {
                continue;
            }
            // Whoever removed it died before its name was free.
            let name = Undo::UnlinkPointing { directory: self.paths.names(), text: entry.clone() };
            let users = Undo::UnlinkPointing { directory: self.paths.users(), text: entry };
            if undo::perform(&[name, users]).is_empty() {
                let _ = fs::remove_dir_all(path);
            }
        }
        for id in ids_in(&self.paths.state)? {
            if !status::alive(&self.paths.live(&id)) {
                self.sweep_live(&id)?;
            }
        }
        self.release_dead_networks()
    }

    /// A creation nobody holds the lock of: its maker died.
    fn sweep_creation(&self, id: &ContainerId) {
        let path = self.paths.creating().join(id.as_str());
        let Ok(dir) = fs::File::open(&path) else { return };
        // A maker has its lock a moment after the directory exists.
        let young = dir
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|made| made.elapsed().map_or(true, |age| age < Duration::from_secs(2)));
        if young || flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let record = ContainerDir::new(path.clone()).record();
        if let Ok(Some(record)) = ledger::read::<Record>(&record) {
            let _ = names::release(&self.paths, &record.name, id);
            for name in record.anonymous_volumes() {
                let _ = volume::remove(&self.paths, name);
            }
        }
        if undo::perform(&[ranges::release(&self.paths, id)]).is_empty() {
            let _ = fs::remove_dir_all(&path);
        }
    }

    /// Live state without a supervisor.
    fn sweep_live(&self, id: &ContainerId) -> Result<()> {
        match self.try_lock(id) {
            Ok(Some(_lock)) => self.recover_lost(id),
            // Somebody is starting or removing it.
            Ok(None) => Ok(()),
            // `--rm`, and its supervisor died between the record and the state directory.
            Err(Error::NoContainer(_)) => {
                let _ = self.release_network(id);
                let _ = fs::remove_dir_all(self.paths.live(id));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a container whose supervisor was killed. The caller holds its lock.
    pub(crate) fn recover_lost(&self, id: &ContainerId) -> Result<()> {
        let live = self.paths.live(id);
        let dir = self.paths.container(id);
        match recover::recover(&live, &dir).map_err(Error::file("recover", &live))? {
            Recovered::Alive => return Ok(()),
            // A start was killed before there was anything: it has not run, and no host went down.
            Recovered::Nothing if live.exists() => {
                self.release_network(id)?;
                let _ = fs::remove_file(dir.join(STARTED_FILE));
            }
            Recovered::Nothing => {}
            // What could not be undone is tried again by whoever owns it: leases and ports below, trees by
            // the next sweep.
            Recovered::Undone(_) => {
                if let Ok(Some(record)) = self.record(id) {
                    self.tell_container(&record, "die", &[("exitCode", "137")]);
                }
                self.release_network(id)?;
            }
        }
        match fs::remove_dir_all(&live) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", live)(error)),
            _ => Ok(()),
        }
    }
}

fn entries(dir: &std::path::Path) -> Result<Vec<String>> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", dir)(error)),
    };
    Ok(list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn ids_in(dir: &std::path::Path) -> Result<Vec<ContainerId>> {
    Ok(entries(dir)?.iter().filter_map(|name| ContainerId::parse(name).ok()).collect())
}
