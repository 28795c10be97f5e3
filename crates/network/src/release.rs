//! Taking away what a container has left when its supervisor could not: found by records and leases.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use cata_spec::{ContainerId, Name};

use crate::connect::endpoint_file;
use crate::files::read_json;
use crate::firewall::Firewall;
use crate::ipam::lease;
use crate::networks::Networks;
use crate::port::Target;
use crate::record::EndpointRecord;
use crate::{Error, port};

impl Networks {
    /// Takes away what a container that no longer lives has left: leases, names, published ports, records.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Netlink`]; what could be taken away was.
    pub fn release(&self, container: &ContainerId) -> Result<(), Error> {
        let mut first = None;
        for directory in self.directories()? {
            if let Err(error) = self.release_in(&directory, container) {
                // Go on: one thing that stays must not keep the others.
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// [`Networks::release`], of one network.
    ///
    /// # Errors
    /// As [`Networks::release`].
    pub fn release_from(&self, network: &Name, container: &ContainerId) -> Result<(), Error> {
        self.release_in(&self.directory(network), container)
    }

    /// [`Networks::release`] for every container that has something here and is not `alive`.
    ///
    /// # Errors
    /// As [`Networks::release`].
    pub fn release_dead(&self, alive: impl Fn(&ContainerId) -> bool) -> Result<Vec<ContainerId>, Error> {
        let directories = self.directories()?;
        let mut known = BTreeSet::new();
        for directory in &directories {
            known.extend(lease::list(directory)?.iter().filter_map(|(_, path)| lease::owner(path)));
            let endpoints = directory.join("endpoints");
            let entries =
                fs::read_dir(&endpoints).map_err(|source| Error::file("read", &endpoints, source))?;
            let ids = entries.flatten().filter_map(|entry| {
                let name = entry.file_name();
                ContainerId::parse(name.to_str()?.split('.').next()?).ok()
            });
            known.extend(ids);
        }
        for directory in &directories {
            remove_orphaned_names(directory)?;
        }
        let dead: Vec<ContainerId> = known.into_iter().filter(|id| !alive(id)).collect();
        for container in &dead {
            self.release(container)?;
        }
        Ok(dead)
    }

    /// What it has on the network with this directory.
    pub(crate) fn release_in(&self, directory: &Path, container: &ContainerId) -> Result<(), Error> {
        let file = endpoint_file(directory, container);
        match read_json::<EndpointRecord>(&file) {
            Ok(record) if !record.ports.is_empty() && !self.forwards() => withdraw(&record)?,
            // A record that cannot be read was not finished: what it would describe was not begun.
            Ok(_) | Err(Error::Record { .. }) => {}
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let suffix = crate::connect::names::ending(container);
        let names = directory.join("names");
        for entry in fs::read_dir(&names).map_err(|source| Error::file("read", &names, source))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
                remove(&entry.path())?;
            }
        }
        for (_, path) in lease::list(directory)? {
            if lease::owner(&path).as_ref() == Some(container) {
                remove(&path)?;
            }
        }
        remove(&file.with_extension("new"))?;
        remove(&file)
    }
}

/// Names whose endpoint is gone: a rename that came too late for its container's end.
fn remove_orphaned_names(directory: &Path) -> Result<(), Error> {
    let names = directory.join("names");
    // Names are looked at before the endpoints: an endpoint is recorded before its names are.
    let names: Vec<_> =
        fs::read_dir(&names).map_err(|source| Error::file("read", &names, source))?.flatten().collect();
    if names.is_empty() {
        return Ok(());
    }
    let endpoints = directory.join("endpoints");
    let living: BTreeSet<String> = fs::read_dir(&endpoints)
        .map_err(|source| Error::file("read", &endpoints, source))?
        .flatten()
        .filter_map(|entry| {
            let id = ContainerId::parse(entry.file_name().to_str()?.split('.').next()?).ok()?;
            Some(id.short().to_owned())
        })
        .collect();
    for name in names {
        let file = name.file_name();
        let owner = file.to_str().and_then(|file| file.rsplit_once('@'));
        if owner.is_some_and(|(_, owner)| !living.contains(owner)) {
            remove(&name.path())?;
        }
    }
    Ok(())
}

/// Only while nobody else holds the port: it may be another container's by now.
fn withdraw(record: &EndpointRecord) -> Result<(), Error> {
    let firewall = Firewall::open()?;
    crate::conntrack::forget(&record.ports, &Target::of(&record.endpoint))?;
    let mut outcome = Ok(());
    for published in &record.ports {
        port::if_free(published, || {
            let one = firewall.unpublish(std::iter::once(published));
            if outcome.is_ok() {
                outcome = one;
            }
        });
    }
    outcome
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, source)),
        _ => Ok(()),
    }
}
