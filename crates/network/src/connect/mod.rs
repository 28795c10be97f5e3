//! Connecting a container: leases and records, then its namespace and links, beside them its ports.
//!
//! Whatever was made is registered for undoing before the next thing is made; a killed process leaves
//! records by which [`crate::Networks::release`] finds the rest.

pub mod change;
pub mod names;
pub mod namespace;
pub mod plan;
mod service;

use std::fs;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cata_spec::ContainerId;

use crate::bridge::Host;
use crate::firewall::Firewall;
use crate::forward::Forward;
use crate::ipam::lease;
use crate::networks::Networks;
use crate::port::{self, Hold, Target};
use crate::record::{DEFAULT, EndpointRecord, Network};
use crate::request::{
    ConnectRequest, Connected, Endpoint, EndpointRequest, Link, PublishedPort, ServicePlan, Teardown, Who,
};
use crate::{Error, conntrack, files};

use namespace::{Blueprint, Maker};

/// What has to be taken away again should a later step fail.
#[derive(Debug, Default)]
struct Undo {
    files: Vec<PathBuf>,
    names: Vec<PathBuf>,
    ports: Vec<PublishedPort>,
}

impl Undo {
    fn run(&self, host: &Host) {
        // The error that brought us here is the one to report; `release` finds what stays.
        let _ = host.firewall.unpublish(self.ports.iter());
        for file in self.names.iter().chain(self.files.iter().rev()) {
            let _ = fs::remove_file(file);
        }
    }
}

struct Joined {
    directory: PathBuf,
    network: Network,
    bridge: u32,
    endpoint: Endpoint,
}

impl Networks {
    /// Makes a container's network namespace with everything it asks for.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind then.
    pub fn connect(&self, request: &ConnectRequest) -> Result<Connected, Error> {
        plan::check(&request.endpoints)?;
        if request.endpoints.is_empty() {
            return lonely(request);
        }
        let host = self.host()?;
        let mut undo = Undo::default();
        std::thread::scope(|scope| {
            let maker = namespace::begin(scope, Some(&host.route), request)?;
            let connected = effects(self, request, &host, maker, &mut undo);
            if connected.is_err() {
                undo.run(&host);
            }
            connected
        })
    }

    /// Whether a container may be on a network as it wishes; no look at who has the addresses.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AddressOutside`], [`Error::UnknownNetwork`].
    pub fn check(&self, wish: &EndpointRequest) -> Result<(), Error> {
        plan::check(std::slice::from_ref(wish))?;
        let network = self.load(wish.network.as_str())?;
        let wanted = wish.ipv4.map(IpAddr::V4).into_iter().chain(wish.ipv6.map(IpAddr::V6));
        for address in wanted {
            let pool = network.pool(address.is_ipv6());
            if !pool.is_some_and(|pool| crate::ipam::pool::assignable(pool, address)) {
                return Err(Error::AddressOutside { network: network.name.to_string(), address });
            }
        }
        Ok(())
    }
}

/// `--network none`.
fn lonely(request: &ConnectRequest) -> Result<Connected, Error> {
    if !request.ports.is_empty() {
        return Err(Error::Unsupported("publishing ports without a network".to_owned()));
    }
    let made = std::thread::scope(|scope| {
        let maker = namespace::begin(scope, None, request)?;
        namespace::finish(maker.decide(Blueprint { ipv6: true, ..Blueprint::default() }))
    })?;
    Ok(Connected {
        namespace: made.namespace,
        endpoints: Vec::new(),
        ports: Vec::new(),
        reservations: Vec::new(),
        dns_sockets: Vec::new(),
        taps: Vec::new(),
        services: ServicePlan::default(),
        forwarded: Vec::new(),
        teardown: Vec::new(),
    })
}

fn effects(
    networks: &Networks,
    request: &ConnectRequest,
    host: &Host,
    maker: Maker<'_>,
    undo: &mut Undo,
) -> Result<Connected, Error> {
    let mut joined = Vec::with_capacity(request.endpoints.len());
    let mut locks = Vec::with_capacity(request.endpoints.len());
    for wish in &request.endpoints {
        let network = networks.load(wish.network.as_str())?;
        let bridge = networks.ensure(host, &network)?;
        let directory = networks.directory(&network.name);
        locks.push(files::lock(&directory, files::Lock::Shared, &network.name)?);
        let interface = format!("eth{}", joined.len());
        let endpoint = plan_with_leases(&directory, &network, &request.who, (wish, interface), undo)?;
        joined.push(Joined { directory, network, bridge, endpoint });
    }
    let mut blueprint = plan::blueprint(&joined.iter().map(Joined::member).collect::<Vec<_>>())?;

    let endpoints: Vec<Endpoint> = joined.iter().map(|one| one.endpoint.clone()).collect();
    let exposed = plan::exposed(request, &endpoints)?;
    let target = exposed.map(|at| target(&joined[at].network, &joined[at].endpoint));
    let mut ports = Vec::new();
    let mut reservations = Vec::new();
    for port in &request.ports {
        let Some(target) = &target else { break };
        let how = if networks.forwards() { Hold::Listening } else { Hold::Silent };
        for (published, socket) in port::reserve(port, target, how)? {
            ports.push(published);
            reservations.push(socket);
        }
    }

    // Records before the effects they describe.
    for (at, one) in joined.iter().enumerate() {
        let ports = if exposed == Some(at) { ports.clone() } else { Vec::new() };
        write_record(one, &request.who, ports, undo)?;
    }
    // From here on, who removes a network sees the endpoints.
    drop(locks);
    let serves_names = blueprint.names;
    let taps = if request.taps {
        namespace::taps(&host.route, std::mem::take(&mut blueprint.interfaces))?
    } else {
        Vec::new()
    };
    let making = maker.decide(blueprint);
    let redirected = target.as_ref().filter(|_| !networks.forwards());
    let published = redirected.map_or(Ok(()), |target| publish(&host.firewall, &ports, target, undo));
    let made = namespace::finish(making)?;
    published?;

    let teardown = teardown(networks, host, &request.who.container, (&endpoints, &ports));
    let (mut forwards, mut forwarded) = (Vec::new(), Vec::new());
    if let Some(target) = target.as_ref().filter(|_| networks.forwards()) {
        forwards = ports.iter().filter_map(|port| forward(port, target)).collect();
        forwarded = std::mem::take(&mut reservations);
    }
    let links: Vec<Link> = request.endpoints.iter().flat_map(|wish| wish.links.clone()).collect();
    Ok(Connected {
        namespace: made.namespace,
        services: ServicePlan {
            names: serves_names.then(|| {
                service::plan(
                    networks.forwards(),
                    (&request.dns_upstream, &links),
                    joined.iter().map(Joined::member),
                )
            }),
            forwards,
        },
        forwarded,
        endpoints,
        ports,
        reservations,
        dns_sockets: made.dns_sockets,
        taps,
        teardown,
    })
}

/// How everything a container has is taken away without any knowledge of networks.
fn teardown(
    networks: &Networks,
    host: &Host,
    container: &ContainerId,
    (endpoints, ports): (&[Endpoint], &[PublishedPort]),
) -> Vec<Teardown> {
    let redirected = plan::carrier(endpoints).filter(|_| !networks.forwards() && !ports.is_empty());
    let target = redirected.map(|at| Target::of(&endpoints[at]));
    let mut steps = target.map(|target| withdrawal(host, ports, &target)).unwrap_or_default();
    let at = |endpoint: &Endpoint| networks.directory(&endpoint.network);
    // Names first and records last: a half-done teardown is found again. Names may have changed by then.
    let ending = names::ending(container);
    let named = endpoints.iter().filter(|endpoint| endpoint.network.as_str() != DEFAULT);
    steps.extend(named.map(|endpoint| Teardown::UnlinkEnding(at(endpoint).join("names"), ending.clone())));
    for endpoint in endpoints {
        let v4 = endpoint.ipv4.map(|(address, _)| IpAddr::V4(address));
        let v6 = endpoint.ipv6.map(|(address, _)| IpAddr::V6(address));
        let leases = v4.into_iter().chain(v6).map(|address| lease::file(&at(endpoint), address));
        steps.extend(leases.map(Teardown::Unlink));
    }
    steps.extend(endpoints.iter().map(|endpoint| Teardown::Unlink(endpoint_file(&at(endpoint), container))));
    steps
}

/// What takes published ports out of the firewall again.
fn withdrawal(host: &Host, ports: &[PublishedPort], target: &Target) -> Vec<Teardown> {
    let batches = host.firewall.unpublish_later(ports).into_iter();
    let mut steps: Vec<Teardown> =
        batches.map(|batch| Teardown::Netlink(cata_sys::netlink::NETFILTER, batch)).collect();
    steps.extend(conntrack::forget_later(ports, target));
    steps
}

/// Where what arrives at a published port goes: there is a socket for each that has an address.
fn forward(port: &PublishedPort, target: &Target) -> Option<Forward> {
    let target = std::net::SocketAddr::new(target.address(port)?, port.container_port);
    Some(Forward { transport: port.transport, target })
}

impl Joined {
    fn member(&self) -> plan::Member<'_> {
        plan::Member {
            network: &self.network,
            bridge: self.bridge,
            endpoint: &self.endpoint,
            directory: &self.directory,
        }
    }
}

fn plan_with_leases(
    directory: &Path,
    network: &Network,
    who: &Who,
    (wish, interface): (&EndpointRequest, String),
    undo: &mut Undo,
) -> Result<Endpoint, Error> {
    let mut leased = [None, None];
    for (slot, v6, wanted) in [(0, false, wish.ipv4.map(IpAddr::V4)), (1, true, wish.ipv6.map(IpAddr::V6))] {
        match (network.pool(v6), wanted) {
            (Some(pool), wanted) => {
                let owner = (&who.container, &who.name);
                let (address, file) = lease::acquire(directory, network, pool, wanted, owner)?;
                undo.files.push(file);
                leased[slot] = Some(address);
            }
            (None, Some(address)) => {
                return Err(Error::AddressOutside { network: network.name.to_string(), address });
            }
            (None, None) => {}
        }
    }
    Ok(plan::endpoint(who, wish, interface, network, leased))
}

fn target(network: &Network, endpoint: &Endpoint) -> Target {
    Target { host_binding: network.host_binding, ..Target::of(endpoint) }
}

fn publish(
    firewall: &Firewall,
    ports: &[PublishedPort],
    target: &Target,
    undo: &mut Undo,
) -> Result<(), Error> {
    undo.ports.extend_from_slice(ports);
    let redirections: Vec<_> =
        ports.iter().filter_map(|port| target.address(port).map(|address| (*port, address))).collect();
    firewall.publish(&redirections)?;
    conntrack::forget_before(ports)
}

fn write_record(joined: &Joined, who: &Who, ports: Vec<PublishedPort>, undo: &mut Undo) -> Result<(), Error> {
    let record = EndpointRecord {
        container: who.container.clone(),
        name: who.name.clone(),
        endpoint: joined.endpoint.clone(),
        ports,
    };
    let path = endpoint_file(&joined.directory, &who.container);
    files::write_json(&path, &record, files::Durability::Page)?;
    // Unlinked last, because undoing goes backwards.
    undo.files.insert(0, path);
    if joined.network.resolves_names() {
        names::publish(&joined.directory, &record, &mut undo.names)?;
    }
    Ok(())
}

/// `endpoints/<id>.json`.
pub(crate) fn endpoint_file(directory: &Path, container: &ContainerId) -> PathBuf {
    directory.join("endpoints").join(format!("{container}.json"))
}

/// What [`namespace::make`] made.
#[derive(Debug)]
pub struct Made {
    /// The namespace.
    pub namespace: OwnedFd,
    /// UDP and TCP, to which 127.0.0.11:53 leads.
    pub dns_sockets: Vec<OwnedFd>,
}
