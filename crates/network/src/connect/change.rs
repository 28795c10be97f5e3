//! Another network for a container that runs, or one less.
//!
//! What is in the container's namespace and in the firewall is settled as the endpoints say that there are to be:
//! the default route, the endpoint that published ports lead to, the records. Each step can be done once more. A
//! killed process leaves an endpoint that nobody knows of, which the next change takes away first.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use cata_spec::Name;

use super::namespace::{self, Change};
use super::plan::{self, Member};
use super::service;
use super::{Joined, Undo, endpoint_file, plan_with_leases, publish, target, teardown, write_record};
use crate::bridge::Host;
use crate::files::{self, read_json};
use crate::firewall::Firewall;
use crate::networks::Networks;
use crate::port::{self, Hold, Target};
use crate::record::{EndpointRecord, Network};
use crate::request::{Changed, Endpoint, EndpointRequest, Present, PublishedPort, ServicePlan};
use crate::{Error, conntrack};

impl Networks {
    /// Puts a running container on one more network. What an earlier change left half-done is undone first.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind then.
    pub fn join(&self, present: &Present, wish: &EndpointRequest) -> Result<Changed, Error> {
        plan::check(std::slice::from_ref(wish))?;
        let host = self.host()?;
        let left = repair(self, &host, present)?;
        let network = self.load(wish.network.as_str())?;
        let bridge = self.ensure(&host, &network)?;
        let directory = self.directory(&network.name);
        let lock = files::lock(&directory, files::Lock::Shared, &network.name)?;
        let mut undo = Undo::default();
        let joined = (|| {
            let interface = plan::free_interface(&present.endpoints);
            let endpoint =
                plan_with_leases(&directory, &network, &present.who, (wish, interface), &mut undo)?;
            let joined = Joined { directory, network, bridge, endpoint };
            write_record(&joined, &present.who, Vec::new(), &mut undo)?;
            // From here on, who removes the network sees the endpoint.
            drop(lock);
            let mut endpoints = present.endpoints.clone();
            endpoints.push(joined.endpoint.clone());
            let joins = Some(plan::interface(&joined.member())?);
            let names = !present.names && joined.network.resolves_names();
            settle(self, &host, present, endpoints, Change { joins, names, ..Change::default() })
        })();
        if joined.is_err() {
            undo.run(&host);
            // What was settled for it: as it was before. The error that brought us here is the one to report.
            let change = Change { leave: new_interface(present), ..Change::default() };
            let _ = settle(self, &host, present, present.endpoints.clone(), change);
        }
        joined.map(|changed| Changed { left, ..changed })
    }

    /// Takes a running container's link to a network, with its routes and published ports. The rest is
    /// [`Networks::release_from`]'s, once nobody else has it on his list. Idempotent.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn leave(&self, present: &Present, network: &Name) -> Result<Changed, Error> {
        let host = self.host()?;
        let left = repair(self, &host, present)?;
        let (gone, stay): (Vec<Endpoint>, Vec<Endpoint>) =
            present.endpoints.iter().cloned().partition(|endpoint| endpoint.network == *network);
        let leave = gone.into_iter().map(|endpoint| endpoint.interface).collect();
        let changed = settle(self, &host, present, stay, Change { leave, ..Change::default() })?;
        Ok(Changed { left, ..changed })
    }
}

fn new_interface(present: &Present) -> Vec<String> {
    vec![plan::free_interface(&present.endpoints)]
}

/// Takes away what a killed change left: endpoints on networks that the container is not on.
fn repair(networks: &Networks, host: &Host, present: &Present) -> Result<Vec<Endpoint>, Error> {
    let mut left = Vec::new();
    for directory in networks.directories()? {
        let known =
            present.endpoints.iter().any(|endpoint| networks.directory(&endpoint.network) == directory);
        if known {
            continue;
        }
        if let Ok(record) = read_json::<EndpointRecord>(&endpoint_file(&directory, &present.who.container)) {
            left.push(record.endpoint);
        }
        networks.release_in(&directory, &present.who.container)?;
    }
    let mut leave: Vec<String> = left.iter().map(|endpoint| endpoint.interface.clone()).collect();
    leave.retain(|name| !present.endpoints.iter().any(|endpoint| endpoint.interface == *name));
    if !leave.is_empty() {
        let change = Change { leave, ..Change::default() };
        settle(networks, host, present, present.endpoints.clone(), change)?;
    }
    Ok(left)
}

/// Makes everything as `endpoints` say.
fn settle(
    networks: &Networks,
    host: &Host,
    present: &Present,
    endpoints: Vec<Endpoint>,
    change: Change,
) -> Result<Changed, Error> {
    let records = endpoints
        .iter()
        .map(|endpoint| networks.load(endpoint.network.as_str()))
        .collect::<Result<Vec<Network>, Error>>()?;
    let at = plan::carrier(&endpoints);
    let carried = at.map(|at| target(&records[at], &endpoints[at]));
    let mut ports = present.ports.clone();
    let mut reserved = Vec::new();
    if let Some(target) = carried.as_ref().filter(|_| ports.is_empty()) {
        let how = if networks.forwards() { Hold::Listening } else { Hold::Silent };
        for wanted in &present.wanted {
            for (published, socket) in port::reserve(wanted, target, how)? {
                ports.push(published);
                reserved.push(socket);
            }
        }
    }
    let before = plan::carrier(&present.endpoints).map(|at| &present.endpoints[at]);
    // What goes may be a killed change's, to which the ports lead already.
    let exposed = change.leave.is_empty() && before == at.map(|at| &endpoints[at]) && reserved.is_empty();
    let change = Change { routes: routes(&endpoints), ..change };
    let dns_sockets = namespace::change(&host.route, present.namespace.as_fd(), &change)?;
    if !exposed && !networks.forwards() && !ports.is_empty() {
        expose(&host.firewall, before, at.map(|at| &endpoints[at]), &ports)?;
    }
    record(networks, present, &endpoints, (at, &ports))?;

    let names = present.names || records.iter().any(Network::resolves_names);
    let directories: Vec<_> = records.iter().map(|network| networks.directory(&network.name)).collect();
    let members = endpoints.iter().zip(&records).zip(&directories);
    let members =
        members.map(|((endpoint, network), directory)| Member { network, bridge: 0, endpoint, directory });
    let plan =
        names.then(|| service::plan(networks.forwards(), (&present.dns_upstream, &present.links), members));
    let (forwards, reservations, forwarded) = match &carried {
        Some(target) if networks.forwards() => {
            (ports.iter().filter_map(|port| super::forward(port, target)).collect(), Vec::new(), reserved)
        }
        _ => (Vec::new(), reserved, Vec::new()),
    };
    Ok(Changed {
        teardown: teardown(networks, host, &present.who.container, (&endpoints, &ports)),
        published: at.is_some(),
        left: Vec::new(),
        endpoints,
        ports,
        reservations,
        dns_sockets,
        names,
        services: ServicePlan { names: plan, forwards },
        forwarded,
    })
}

/// PURE: the default routes of these endpoints.
fn routes(endpoints: &[Endpoint]) -> Vec<(String, IpAddr)> {
    let of = |at: usize| {
        let name = &endpoints[at].interface;
        plan::gateways(endpoints, at).into_iter().map(move |gateway| (name.clone(), gateway))
    };
    (0..endpoints.len()).flat_map(of).collect()
}

/// Published ports lead to the endpoint that has the default route; nowhere, if none has.
fn expose(
    firewall: &Firewall,
    before: Option<&Endpoint>,
    now: Option<&Endpoint>,
    ports: &[PublishedPort],
) -> Result<(), Error> {
    match now {
        Some(endpoint) => publish(firewall, ports, &Target::of(endpoint), &mut Undo::default())?,
        None => firewall.unpublish(ports.iter())?,
    }
    before.map_or(Ok(()), |before| conntrack::forget(ports, &Target::of(before)))
}

/// Which endpoint has the ports.
fn record(
    networks: &Networks,
    present: &Present,
    endpoints: &[Endpoint],
    (at, ports): (Option<usize>, &[PublishedPort]),
) -> Result<(), Error> {
    for (number, endpoint) in endpoints.iter().enumerate() {
        let path = endpoint_file(&networks.directory(&endpoint.network), &present.who.container);
        let record = EndpointRecord {
            container: present.who.container.clone(),
            name: present.who.name.clone(),
            endpoint: endpoint.clone(),
            ports: if at == Some(number) { ports.to_vec() } else { Vec::new() },
        };
        files::write_json(&path, &record, files::Durability::Page)?;
    }
    Ok(())
}
