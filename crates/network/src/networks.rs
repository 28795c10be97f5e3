//! The handle on networks: one method a verb.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cata_spec::Name;
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use crate::bridge::Host;
use crate::create::{self, Circumstances};
use crate::files::{Durability, Lock, lock, lock_file, read_json, write_json};
use crate::inside::Inside;
use crate::record::{DEFAULT, Driver, EndpointRecord, Network, Pool};
use crate::request::{CreateNetwork, PublishedPort};
use crate::{Error, random};

const DEFAULT_INTERFACE: &str = "cata0";
const PREDEFINED: [(&str, Driver); 3] =
    [(DEFAULT, Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

/// A network and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The network.
    pub network: Network,
    /// Its endpoints, by container id.
    pub endpoints: Vec<EndpointRecord>,
}

/// The networks under one root.
#[derive(Debug, Clone)]
pub struct Networks {
    root: PathBuf,
    inside: Option<Inside>,
}

impl Networks {
    /// Opens `<root>/networks/`, making it if need be. Live state needs no directory of its own:
    /// `_state` is where it would be.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(root: &Path, _state: &Path) -> Result<Self, Error> {
        let root = root.join("networks");
        fs::create_dir_all(&root).map_err(|source| Error::file("make directory", &root, source))?;
        Ok(Self { root, inside: None })
    }

    /// The same, with links and firewall in a user's network instead of the host's.
    #[must_use]
    pub fn inside(self, inside: Inside) -> Self {
        Self { inside: Some(inside), ..self }
    }

    /// Links and firewall.
    pub(crate) fn host(&self) -> Result<Host, Error> {
        self.inside.as_ref().map_or_else(Host::open, Inside::open)
    }

    /// Whether ports are published by sockets instead of the firewall.
    pub(crate) fn forwards(&self) -> bool {
        self.inside.is_some()
    }

    /// `network create`.
    ///
    /// # Errors
    /// [`Error::NetworkExists`] and whatever [`create::plan`] finds wrong.
    pub fn create(&self, request: &CreateNetwork) -> Result<Network, Error> {
        if PREDEFINED.iter().any(|(name, _)| *name == request.name.as_str())
            || self.directory(&request.name).exists()
        {
            return Err(Error::NetworkExists(request.name.to_string()));
        }
        self.predefined(DEFAULT)?;
        let _creation = lock_file(&self.root.join(".lock"), FlockOperation::LockExclusive)?;
        let network = create::plan(request, &self.circumstances()?)?;
        self.store(&network)?;
        Ok(network)
    }

    /// Every network, the predefined ones first, then by name; those whose record is damaged are handed to
    /// `damaged`, so that one hides no others.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list(&self, damaged: impl FnMut(&Path, &Error)) -> Result<Vec<Network>, Error> {
        let mut networks = Vec::new();
        for (name, _) in PREDEFINED {
            networks.push(self.predefined(name)?);
        }
        networks.extend(self.user_made(damaged)?);
        Ok(networks)
    }

    /// A network, by name, id or the beginning of its id, and who is on it.
    ///
    /// # Errors
    /// [`Error::UnknownNetwork`], [`Error::AmbiguousNetwork`].
    pub fn inspect(&self, name: &str) -> Result<Inspection, Error> {
        let network = self.find(name)?;
        let endpoints = self.endpoints(&network.name)?;
        Ok(Inspection { network, endpoints })
    }

    /// `network rm`, by name, id or the beginning of its id.
    ///
    /// # Errors
    /// [`Error::Predefined`], [`Error::ActiveEndpoints`], [`Error::UnknownNetwork`].
    pub fn remove(&self, name: &str) -> Result<Network, Error> {
        let network = self.find(name)?;
        if network.is_predefined() {
            return Err(Error::Predefined(network.name.to_string()));
        }
        let directory = self.directory(&network.name);
        let _lock = lock(&directory, Lock::Exclusive, &network.name)?;
        let containers: Vec<String> =
            self.endpoints(&network.name)?.into_iter().map(|record| record.name.to_string()).collect();
        if !containers.is_empty() {
            return Err(Error::ActiveEndpoints { network: network.name.to_string(), containers });
        }
        self.host()?.remove(&network)?;
        // Out of the listing at once; what stays after a crash is hidden, and removed by the next removal.
        let gone = self.root.join(format!(".removed-{}", network.id));
        fs::rename(&directory, &gone).map_err(|source| Error::file("remove", &directory, source))?;
        fs::remove_dir_all(&gone).map_err(|source| Error::file("remove", &gone, source))?;
        self.remove_rests();
        Ok(network)
    }

    /// `network prune`: removes the user-made networks that have no endpoints and that `chosen` picks.
    ///
    /// # Errors
    /// As [`Networks::remove`].
    pub fn prune(&self, chosen: impl Fn(&Network) -> bool) -> Result<Vec<Network>, Error> {
        let mut removed = Vec::new();
        for network in self.user_made(|_, _| {})?.into_iter().filter(chosen) {
            match self.remove(&network.id) {
                Ok(network) => removed.push(network),
                Err(Error::ActiveEndpoints { .. } | Error::UnknownNetwork(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// `<root>/networks/<name>/`.
    pub(crate) fn directory(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// A network by its exact name.
    pub(crate) fn load(&self, name: &str) -> Result<Network, Error> {
        match read_record(&self.root.join(name).join("record.json")) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.predefined(name)
            }
            outcome => outcome,
        }
    }

    /// Names of the directories of all networks.
    pub(crate) fn directories(&self) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| Error::file("read", &self.root, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Endpoints of a network; records that a killed process left half-written are not endpoints yet.
    pub(crate) fn endpoints(&self, name: &Name) -> Result<Vec<EndpointRecord>, Error> {
        let directory = self.directory(name).join("endpoints");
        let failed = |source| Error::file("read", &directory, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension() != Some(OsStr::new("json")) {
                continue;
            }
            match read_json(&path) {
                // Gone since it was listed.
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                outcome => found.push(outcome?),
            }
        }
        found.sort_by(|a: &EndpointRecord, b| a.container.cmp(&b.container));
        Ok(found)
    }

    /// The bridge's index, made first if anything of it is missing.
    pub(crate) fn ensure(&self, host: &Host, network: &Network) -> Result<u32, Error> {
        if network.driver != Driver::Bridge {
            let reason = "containers cannot be connected to it beside others".to_owned();
            return Err(Error::Invalid { field: "network", value: network.name.to_string(), reason });
        }
        if let Some(index) = host.find(network)? {
            return Ok(index);
        }
        let _lock = lock(&self.directory(&network.name), Lock::Exclusive, &network.name)?;
        if let Some(index) = host.find(network)? {
            return Ok(index);
        }
        match &self.inside {
            Some(inside) => inside.act(|| host.make(network, &[])),
            None => host.make(network, &self.published(&network.name)?),
        }
    }

    /// What living containers have published through a network. Nobody holds the ports of the dead.
    fn published(&self, name: &Name) -> Result<Vec<(PublishedPort, IpAddr)>, Error> {
        let mut found = Vec::new();
        for record in self.endpoints(name)? {
            for port in record.ports {
                let mut free = false;
                crate::port::if_free(&port, || free = true);
                let target = match port.host_ip {
                    IpAddr::V4(_) => record.endpoint.ipv4.map(|(address, _)| IpAddr::V4(address)),
                    IpAddr::V6(_) => record.endpoint.ipv6.map(|(address, _)| IpAddr::V6(address)),
                };
                found.extend(target.filter(|_| !free).map(|target| (port, target)));
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str) -> Result<Network, Error> {
        match self.load(name) {
            Err(Error::UnknownNetwork(_)) => {}
            outcome => return outcome,
        }
        let mut fitting = self
            .list(|_, _| {})?
            .into_iter()
            .filter(|network| !name.is_empty() && network.id.starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::AmbiguousNetwork(name.to_owned())),
            (None, _) => Err(Error::UnknownNetwork(name.to_owned())),
        }
    }

    /// `bridge`, `host` or `none`, made when first looked at.
    fn predefined(&self, name: &str) -> Result<Network, Error> {
        let unknown = || Error::UnknownNetwork(name.to_owned());
        let (_, driver) = *PREDEFINED.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        let record = self.root.join(name).join("record.json");
        if record.exists() {
            return read_record(&record);
        }
        let _creation = lock_file(&self.root.join(".lock"), FlockOperation::LockExclusive)?;
        if record.exists() {
            return read_record(&record);
        }
        let name = Name::parse(name).map_err(|_| unknown())?;
        let network = if driver == Driver::Bridge {
            self.default_bridge(name)?
        } else {
            create::builtin(name, driver, random::id(), now_ns())
        };
        self.store(&network)?;
        Ok(network)
    }

    fn default_bridge(&self, name: Name) -> Result<Network, Error> {
        // Another root's default network on the same host has the short name already.
        let host = self.host()?;
        let mut options = Vec::new();
        if crate::bridge::index(&host.route, DEFAULT_INTERFACE).is_none() {
            options.push(("com.docker.network.bridge.name".to_owned(), DEFAULT_INTERFACE.to_owned()));
        }
        let request = CreateNetwork {
            name,
            driver: "bridge".to_owned(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            ip_ranges: Vec::new(),
            internal: false,
            ipv6: false,
            labels: Vec::new(),
            options,
        };
        create::plan(&request, &self.circumstances()?)
    }

    fn circumstances(&self) -> Result<Circumstances, Error> {
        let mut networks = Vec::new();
        for directory in self.directories()? {
            let network = read_record(&directory.join("record.json"))?;
            let subnets = network.pools.iter().map(|pool: &Pool| pool.subnet);
            networks.extend(subnets.map(|subnet| (network.name.clone(), subnet)));
        }
        let random = random::bytes::<7>();
        let host = self.inside.as_ref().map_or_else(|| Host::open()?.subnets(), Inside::taken)?;
        Ok(Circumstances { id: random::id(), mac: random::mac(), random, now_ns: now_ns(), networks, host })
    }

    /// Makes a network's directory appear with everything in it.
    fn store(&self, network: &Network) -> Result<(), Error> {
        let new = self.root.join(format!(".new-{}", network.id));
        let to = self.directory(&network.name);
        let stored = fill(&new, network).and_then(|()| {
            rustix::fs::renameat_with(CWD, &new, CWD, &to, RenameFlags::NOREPLACE).map_err(
                |errno| match errno {
                    rustix::io::Errno::EXIST => Error::NetworkExists(network.name.to_string()),
                    errno => Error::file("make directory", &to, errno),
                },
            )
        });
        if stored.is_err() {
            // The error is reported; the rest of a new directory is removed by the next removal too.
            let _ = fs::remove_dir_all(&new);
        }
        stored
    }

    fn user_made(&self, mut damaged: impl FnMut(&Path, &Error)) -> Result<Vec<Network>, Error> {
        let mut networks = Vec::new();
        for directory in self.directories()? {
            match read_record(&directory.join("record.json")) {
                // Removed since it was listed.
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Ok(network) if network.is_predefined() => {}
                Err(error @ Error::Record { .. }) => damaged(&directory, &error),
                outcome => networks.push(outcome?),
            }
        }
        Ok(networks)
    }

    /// What a removal that was killed has left.
    fn remove_rests(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".removed-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn read_record(path: &Path) -> Result<Network, Error> {
    read_json(path)
}

fn fill(new: &Path, network: &Network) -> Result<(), Error> {
    for directory in ["", "leases", "names", "endpoints"] {
        let path = new.join(directory);
        fs::create_dir_all(&path).map_err(|source| Error::file("make directory", path, source))?;
    }
    let lock = new.join("lock");
    fs::write(&lock, b"").map_err(|source| Error::file("write", lock, source))?;
    write_json(&new.join("record.json"), network, Durability::Disk)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
