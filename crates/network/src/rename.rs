//! A running container's new name: its endpoints answer to it at once, and no longer to the old one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cata_spec::{ContainerId, Name};

use crate::connect::{endpoint_file, names};
use crate::ipam::lease;
use crate::networks::Networks;
use crate::record::EndpointRecord;
use crate::request::Endpoint;
use crate::{Error, files};

impl Networks {
    /// Gives a container's endpoints another name; returns them as they are now.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Record`].
    pub fn rename(&self, container: &ContainerId, to: &Name) -> Result<Vec<Endpoint>, Error> {
        let mut endpoints = Vec::new();
        for directory in self.directories()? {
            match files::read_json::<EndpointRecord>(&endpoint_file(&directory, container)) {
                Ok(record) => endpoints.push(one(self, &directory, &record, to)?),
                Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(endpoints)
    }
}

fn one(networks: &Networks, directory: &Path, from: &EndpointRecord, to: &Name) -> Result<Endpoint, Error> {
    let record = renamed(from, to);
    let path = endpoint_file(directory, &record.container);
    let network = networks.load(record.endpoint.network.as_str())?;
    files::write_json(&path, &record, files::Durability::Page)?;
    if network.resolves_names() {
        names::publish(directory, &record, &mut Vec::new())?;
        let gone = from.endpoint.aliases.iter().filter(|old| !record.endpoint.aliases.contains(old));
        for name in gone {
            remove(&names::file(directory, from, name))?;
        }
    }
    for (_, path) in lease::list(directory)? {
        if lease::owner(&path).as_ref() == Some(&record.container) {
            // Reverse look-ups read the name from the lease.
            let new = directory.join(format!(".lease-{}", record.container.short()));
            remove(&new)?;
            let failed = |source| Error::file("rename the lease", &path, source);
            symlink(lease::text(&record.container, to), &new).map_err(failed)?;
            fs::rename(&new, &path).map_err(failed)?;
        }
    }
    Ok(record.endpoint)
}

/// PURE: the same endpoint under another name. An alias that happens to be the old name cannot be told from
/// it, and goes too; the host name stays.
fn renamed(from: &EndpointRecord, to: &Name) -> EndpointRecord {
    let mut record = EndpointRecord { name: to.clone(), ..from.clone() };
    let others = from.endpoint.aliases.iter().filter(|alias| {
        !alias.eq_ignore_ascii_case(from.name.as_str()) && !alias.eq_ignore_ascii_case(to.as_str())
    });
    record.endpoint.aliases = std::iter::once(to.to_string()).chain(others.cloned()).collect();
    record
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path, source))
        }
        _ => Ok(()),
    }
}
