//! The network room as the engine uses it: which networks a container joins, and what it gets there.

use std::os::fd::OwnedFd;
use std::path::Path;

use cata_network::dns::resolv_conf::{ResolvConf, Wishes};
use cata_network::inside::{self, Inside};
use cata_network::request::{
    ConnectRequest, Connected, CreateNetwork, EndpointRequest, PortRequest, Teardown, Transport, Who,
};
use cata_network::{Network, Networks};
use cata_sandbox::launch::{Go, Isolation, Undo};
use cata_spec::{ContainerId, Name};

use crate::container::live::{NETWORK_FILE, NetworkFacts};
use crate::container::machine::{self, Parts};
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::ledger::{self, Durability};
use crate::record::Record;
use crate::request::NetworkMode;
use crate::rootless::namespaces::held;
use crate::rootless::outside;

/// What a container gets of the network room.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// For `inspect`.
    pub(crate) facts: NetworkFacts,
    /// For the supervisor, with what goes beside it.
    pub(crate) go: Go,
    pub(crate) fds: Vec<OwnedFd>,
    /// What the host could not give.
    pub(crate) withheld: Vec<String>,
}

/// The network room's error as the engine's.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(crate) fn network_error(error: cata_network::Error) -> Error {
    let kind = match error.kind() {
        cata_network::Kind::NotFound => Kind::NotFound,
        cata_network::Kind::Conflict => Kind::Conflict,
        cata_network::Kind::InvalidArgument => Kind::InvalidArgument,
        cata_network::Kind::Denied => Kind::Denied,
        cata_network::Kind::Unsupported => Kind::Unsupported,
        cata_network::Kind::Exhausted => Kind::Exhausted,
        cata_network::Kind::Internal => Kind::Internal,
    };
    let hint = error.hint().map(|hint| hint.to_string());
    Error::Network(Foreign::new(kind, hint, &error))
}

impl Engine {
    /// The room, opened at first use.
    pub(crate) fn networks(&self) -> Result<&Networks> {
        if let Some(networks) = self.networks.get() {
            return Ok(networks);
        }
        let mut networks = Networks::open(&self.paths.root, &self.paths.state).map_err(network_error)?;
        if let Some(held) = held() {
            let network = held.network().map_err(Error::file("open", held.network_path()))?;
            networks = networks.inside(Inside::new(network));
        }
        Ok(self.networks.get_or_init(|| networks))
    }

    /// One network by name or id.
    ///
    /// # Errors
    /// No such network.
    pub fn network(&self, name: &str) -> Result<Network> {
        self.networks()?.inspect(name).map(|found| found.network).map_err(network_error)
    }

    /// Every network.
    ///
    /// # Errors
    /// A file operation. A network whose record is damaged is left out, which [`Engine::damage`] then tells.
    pub fn network_list(&self) -> Result<Vec<Network>> {
        let damaged = |dir: &Path, error: &cata_network::Error| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            self.note_left_out(&format!("network {name}"), error, &format!("rm -r {}", dir.display()));
        };
        self.networks()?.list(damaged).map_err(network_error)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// A name, pool or address that is taken or makes no sense.
    pub fn network_create(&self, request: &CreateNetwork) -> Result<Network> {
        let network = self.networks()?.create(request).map_err(network_error)?;
        self.tell_network(&network, "create");
        Ok(network)
    }

    /// Removes a network nobody is on.
    ///
    /// # Errors
    /// No such network; containers are on it.
    pub fn network_remove(&self, name: &str) -> Result<Network> {
        let network = self.networks()?.remove(name).map_err(network_error)?;
        self.tell_network(&network, "destroy");
        Ok(network)
    }

    /// A running container answers to its new name on its networks, and `inspect` says so.
    pub(crate) fn rename_endpoints(&self, id: &ContainerId, name: &Name) -> Result<()> {
        let endpoints = self.networks()?.rename(id, name).map_err(network_error)?;
        let file = self.paths.live(id).join(NETWORK_FILE);
        let Some(mut facts) = ledger::read::<NetworkFacts>(&file)? else { return Ok(()) };
        for fact in &mut facts.endpoints {
            if let Some(now) = endpoints.iter().find(|one| one.endpoint_id == fact.endpoint_id) {
                fact.aliases.clone_from(&now.aliases);
            }
        }
        match ledger::write(&file, &facts, Durability::Volatile) {
            // Ended meanwhile.
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Takes away whatever a container still has in the network room.
    pub(crate) fn release_network(&self, id: &ContainerId) -> Result<()> {
        self.networks()?.release(id).map_err(network_error)
    }

    /// Takes away what containers had that nobody answers for any more: killed halfway, or before a reboot.
    pub(crate) fn release_dead_networks(&self) -> Result<()> {
        let answered_for = |id: &ContainerId| {
            cata_sandbox::status::alive(&self.paths.live(id))
                // Its starter holds the lock until the supervisor has taken over.
                || matches!(self.try_lock(id), Ok(None))
        };
        self.networks()?.release_dead(answered_for).map(|_| ()).map_err(network_error)
    }

    /// Makes the container's network: facts for `inspect`, and what the supervisor gets.
    pub(crate) fn connect(&self, record: &Record, state_dir: &Path) -> Result<Surroundings> {
        let request = &record.request;
        let endpoints = match &request.network {
            NetworkMode::Host | NetworkMode::Container(_) => {
                // Users of their own come with a network of their own (`plan::users`), or with nothing to be had of it.
                return Ok(Surroundings { fds: kept()?, ..Surroundings::default() });
            }
            NetworkMode::None | NetworkMode::Networks(_) => record.endpoints(),
        };
        let ports = if endpoints.is_empty() { Vec::new() } else { ports(record)? };
        let made =
            record.users.as_ref().map(|users| cata_runtime::userns::make(&users.uids, &users.gids, true));
        let made = made.transpose().map_err(|e| Error::Runtime(Foreign::new(Kind::Internal, None, &e)))?;
        let (users, namespace) = made.map(|made| (made.user, made.network)).unzip();
        let connect = ConnectRequest {
            namespace: namespace.flatten(),
            who: who(record),
            endpoints,
            ports,
            sysctls: Vec::new(),
            dns_upstream: request.dns.clone(),
            taps: request.isolation == Isolation::Vm,
            state_dir: state_dir.to_owned(),
        };
        let way_out = self.way_out(&connect.endpoints)?;
        let connected = self.networks()?.connect(&connect).map_err(|error| self.port_error(error))?;
        let withheld = way_out
            .and_then(outside::Opening::finish)
            .err()
            .map(|why| format!("the container's networks have no way out of this host: {why}"));
        let own = match held() {
            // One that is on no network may be on some later.
            Some(held) if request.network != NetworkMode::None => {
                Some(held.network().map_err(Error::file("open", held.network_path()))?)
            }
            _ => None,
        };
        let machine = match request.isolation {
            Isolation::Vm => {
                let arch = crate::plan::platform::machine(&record.image.platform)?;
                Some(self.machine_parts(record, arch)?.1)
            }
            Isolation::Process => None,
        };
        let mut made = hand_over(connected, (users, own), machine)?;
        made.withheld.extend(withheld);
        Ok(made)
    }

    /// A port that is taken: by whom, if it is one of our containers.
    fn port_error(&self, error: cata_network::Error) -> Error {
        if let cata_network::Error::PortInUse { port, .. } = &error
            && let Ok(views) = self.views()
            && let Some(view) =
                views.iter().find(|view| view.network.ports.iter().any(|p| p.host_port == *port))
        {
            let hint = format!("container {} has published it: `cata port {0}`", view.record.name);
            return Error::Network(Foreign::new(Kind::Conflict, Some(hint), &error));
        }
        network_error(error)
    }

    /// A user's network is brought out of the host by a program: begun here, if anybody wants it.
    pub(crate) fn way_out(
        &self,
        endpoints: &[EndpointRequest],
    ) -> Result<std::result::Result<outside::Opening, String>> {
        let Some(held) = held() else { return Ok(Ok(outside::Opening::default())) };
        for endpoint in endpoints {
            if !self.network(endpoint.network.as_str())?.internal {
                return Ok(outside::open_up(held));
            }
        }
        Ok(Ok(outside::Opening::default()))
    }

    /// `/etc/resolv.conf` of a container. `names`: there is a name service inside.
    pub(crate) fn resolv_conf(&self, record: &Record, names: bool) -> String {
        let request = &record.request;
        let host = ResolvConf::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let wishes = Wishes {
            servers: request.dns.clone(),
            search: request.dns_search.clone(),
            options: request.dns_options.clone(),
        };
        match &request.network {
            NetworkMode::Host => host.for_host_network(&wishes),
            NetworkMode::Networks(_) if names => host.for_user_network(&wishes),
            NetworkMode::Networks(_) if held().is_some() => {
                ResolvConf { servers: vec![inside::NAME_SERVER], ..host }.for_default_bridge(&wishes)
            }
            _ => host.for_default_bridge(&wishes),
        }
    }
}

/// Whose a container's place on networks is.
pub(crate) fn who(record: &Record) -> Who {
    Who { container: record.id.clone(), name: record.name.clone(), hostname: record.config.hostname.clone() }
}

/// Ports asked for, and with `-P` every exposed one that was not.
pub(crate) fn ports(record: &Record) -> Result<Vec<PortRequest>> {
    let mut ports = record.request.ports.clone();
    if record.request.publish_all {
        for exposed in &record.config.exposed {
            for (container_port, transport) in exposed_ports(exposed)? {
                let same = |p: &PortRequest| p.container_port == container_port && p.transport == transport;
                if !ports.iter().any(same) {
                    ports.push(PortRequest {
                        host_ip: None,
                        host_port: 0,
                        host_port_last: 0,
                        container_port,
                        transport,
                    });
                }
            }
        }
    }
    Ok(ports)
}

/// PURE: `5432/tcp`, `8000-8002/udp`.
fn exposed_ports(text: &str) -> Result<Vec<(u16, Transport)>> {
    let invalid = || Error::Invalid(format!("invalid exposed port `{text}`"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let transport = match protocol {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(invalid()),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first == 0 || last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| (port, transport)).collect())
}

/// What a container of a user without privileges keeps for as long as it lives: the holder of its namespaces.
fn kept() -> Result<Vec<OwnedFd>> {
    let Some(held) = held() else { return Ok(Vec::new()) };
    Ok(vec![held.share().map_err(Error::file("share", held.directory()))?])
}

fn hand_over(
    connected: Connected,
    (users, own): (Option<OwnedFd>, Option<OwnedFd>),
    machine: Option<Parts>,
) -> Result<Surroundings> {
    let services = &connected.services;
    let serves = services.names.is_some() || !services.forwards.is_empty();
    let service_plan = serves.then(|| serde_json::to_value(services)).transpose();
    let service_plan = service_plan.map_err(|e| Error::Invalid(e.to_string()))?;
    let links = machine.as_ref().map(|parts| {
        let names = !connected.dns_sockets.is_empty();
        machine::links(&connected.taps, names, parts.archives.len())
    });
    let links = links.map(serde_json::to_value).transpose().map_err(|e| Error::Invalid(e.to_string()))?;
    let parts = machine.into_iter().flat_map(|parts| std::iter::once(parts.kernel).chain(parts.archives));
    let machine: Vec<OwnedFd> = parts.chain(connected.taps.into_iter().map(|(tap, _)| tap)).collect();
    let go = Go {
        endings: Vec::new(),
        network_namespace: true,
        user_namespace: users.is_some(),
        own_network: own.is_some(),
        service_sockets: connected.dns_sockets.len() + connected.forwarded.len(),
        machine: machine.len(),
        links,
        service_plan,
        undo: connected.teardown.into_iter().map(undo).collect(),
    };
    let mut fds = vec![connected.namespace];
    fds.extend(users);
    fds.extend(own);
    fds.extend(connected.dns_sockets);
    fds.extend(connected.forwarded);
    fds.extend(machine);
    fds.extend(connected.reservations);
    fds.extend(kept()?);
    let facts = NetworkFacts {
        endpoints: connected.endpoints,
        ports: connected.ports,
        names: connected.services.names.is_some(),
        held: Vec::new(),
    };
    Ok(Surroundings { facts, go, fds, withheld: Vec::new() })
}

/// The network room's word as the sandbox's.
pub(crate) fn undo(step: Teardown) -> Undo {
    match step {
        Teardown::Netlink(protocol, batch) => Undo::Netlink { protocol, batch },
        Teardown::Unlink(path) => Undo::Unlink(path),
        Teardown::UnlinkEnding(directory, ending) => Undo::UnlinkEnding { directory, ending },
        Teardown::NetlinkEach { protocol, dump, kind } => Undo::NetlinkEach { protocol, dump, kind },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_are_read_with_ranges() {
        assert_eq!(exposed_ports("5432/tcp").unwrap(), [(5432, Transport::Tcp)]);
        assert_eq!(exposed_ports("53-54/udp").unwrap(), [(53, Transport::Udp), (54, Transport::Udp)]);
        for bad in ["", "x/tcp", "0/tcp", "5-4/tcp", "1/sctp", "70000/tcp"] {
            assert!(exposed_ports(bad).is_err(), "{bad}");
        }
    }
}
