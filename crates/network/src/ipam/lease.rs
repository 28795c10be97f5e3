//! Leases: `leases/<ip>` is a symbolic link that says whose the address is.
//!
//! Making a symbolic link is atomic and exclusive, so that any number of processes take addresses at the
//! same time without a lock. Its text is `<container id> <container name>`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cata_spec::{ContainerId, Name};

use super::pool;
use crate::Error;
use crate::record::{Network, Pool};

/// Takes the address asked for, or the lowest free one.
///
/// # Errors
/// [`Error::AddressOutside`], [`Error::AddressInUse`], [`Error::PoolExhausted`], [`Error::File`].
pub fn acquire(
    directory: &Path,
    network: &Network,
    pool: &Pool,
    wanted: Option<IpAddr>,
    owner: (&ContainerId, &Name),
) -> Result<(IpAddr, PathBuf), Error> {
    let text = text(owner.0, owner.1);
    let take = |address: IpAddr| {
        let path = file(directory, address);
        match std::os::unix::fs::symlink(&text, &path) {
            Ok(()) => Ok(Some((address, path))),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(source) => Err(Error::file("lease", path, source)),
        }
    };
    if let Some(address) = wanted {
        let name = || network.name.to_string();
        if !pool::assignable(pool, address) {
            return Err(Error::AddressOutside { network: name(), address });
        }
        return take(address)?.ok_or_else(|| Error::AddressInUse { network: name(), address });
    }
    let mut taken = list(directory)?.into_iter().map(|(address, _)| address).collect::<BTreeSet<_>>();
    while let Some(address) = pool::lowest_free(pool, &taken) {
        if let Some(lease) = take(address)? {
            return Ok(lease);
        }
        taken.insert(address);
    }
    let subnet = pool.range.unwrap_or(pool.subnet).to_string();
    Err(Error::PoolExhausted { network: network.name.to_string(), subnet })
}

/// The file of an address's lease.
pub(crate) fn file(directory: &Path, address: IpAddr) -> PathBuf {
    directory.join("leases").join(address.to_string())
}

/// What a lease says.
pub(crate) fn text(container: &ContainerId, name: &Name) -> String {
    format!("{container} {name}")
}

/// Every lease of a network and its file.
///
/// # Errors
/// [`Error::File`].
pub fn list(directory: &Path) -> Result<Vec<(IpAddr, PathBuf)>, Error> {
    let leases = directory.join("leases");
    let failed = |source| Error::file("read", &leases, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(&leases).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((address, entry.path()));
        }
    }
    Ok(found)
}

/// Whose a lease is.
#[must_use]
pub fn owner(lease: &Path) -> Option<ContainerId> {
    let text = fs::read_link(lease).ok()?;
    let id = text.to_str()?.split(' ').next()?;
    ContainerId::parse(id).ok()
}
