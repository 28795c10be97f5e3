//! PURE: from a wish, networks and leases to endpoints and the blueprint of a namespace.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::namespace::{Blueprint, Interface};
use crate::Error;
use crate::record::{Driver, Network};
use crate::request::{ConnectRequest, Endpoint};

/// A network that the container joins.
#[derive(Debug, Clone, Copy)]
pub struct Member<'m> {
    /// The network.
    pub network: &'m Network,
    /// Its bridge's index.
    pub bridge: u32,
    /// The container's place on it.
    pub endpoint: &'m Endpoint,
    /// `<root>/networks/<name>/`.
    pub directory: &'m Path,
}

/// Refuses what cannot be meant.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(request: &ConnectRequest) -> Result<(), Error> {
    let invalid = |field, value: &str, reason: &str| {
        Err(Error::Invalid { field, value: value.to_owned(), reason: reason.to_owned() })
    };
    for (at, wish) in request.endpoints.iter().enumerate() {
        if request.endpoints[..at].iter().any(|other| other.network == wish.network) {
            return invalid("network", wish.network.as_str(), "joined twice");
        }
        if let Some(alias) = wish.aliases.iter().find(|alias| !super::names::is_resolvable(alias)) {
            return invalid("alias", alias, "not a host name");
        }
        if wish.mac.is_some_and(|mac| mac[0] & 1 == 1 || mac == [0; 6]) {
            return invalid("mac-address", wish.network.as_str(), "a multicast or empty address");
        }
    }
    Ok(())
}

/// The endpoint that a container gets on a network.
#[must_use]
pub fn endpoint(
    request: &ConnectRequest,
    at: usize,
    network: &Network,
    [v4, v6]: [Option<IpAddr>; 2],
) -> Endpoint {
    let wish = &request.endpoints[at];
    let with_prefix = |address: IpAddr| {
        (address, network.pool(address.is_ipv6()).map_or(0, |pool| pool.subnet.prefix_len()))
    };
    let (ipv4, ipv6) = (v4.map(with_prefix), v6.map(with_prefix));
    let ipv4 = ipv4.and_then(|(address, prefix)| match address {
        IpAddr::V4(address) => Some((address, prefix)),
        IpAddr::V6(_) => None,
    });
    let ipv6 = ipv6.and_then(|(address, prefix)| match address {
        IpAddr::V6(address) => Some((address, prefix)),
        IpAddr::V4(_) => None,
    });
    let gateway = |v6: bool| network.pool(v6).filter(|_| !network.internal).map(|pool| pool.gateway);
    let mut aliases: Vec<String> = vec![request.name.to_string()];
    let others = wish.aliases.iter().map(String::as_str);
    for name in others.chain([request.container.short(), &request.hostname]) {
        if super::names::is_resolvable(name) && !aliases.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            aliases.push(name.to_owned());
        }
    }
    Endpoint {
        network: network.name.clone(),
        network_id: network.id.clone(),
        endpoint_id: crate::networks::random_id(),
        ipv4,
        gateway4: gateway(false).and_then(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        }),
        ipv6,
        gateway6: gateway(true).and_then(|gateway| match gateway {
            IpAddr::V6(gateway) => Some(gateway),
            IpAddr::V4(_) => None,
        }),
        mac: wish
            .mac
            .or_else(|| ipv4.map(|(address, _)| mac_of(address.octets())))
            .unwrap_or_else(crate::networks::random_mac),
        interface: format!("eth{at}"),
        aliases,
    }
}

/// Docker's: the address says whose it is, and a successor at the same address needs no new ARP entries.
fn mac_of([a, b, c, d]: [u8; 4]) -> [u8; 6] {
    [0x02, 0x42, a, b, c, d]
}

/// Which endpoint ports are published on: the first with a way out; `None` when nothing is published.
///
/// # Errors
/// [`Error::Unsupported`] when ports are wanted and every network is internal.
pub fn exposed<'n>(
    request: &ConnectRequest,
    mut networks: impl Iterator<Item = &'n Network>,
) -> Result<Option<usize>, Error> {
    if request.ports.is_empty() {
        return Ok(None);
    }
    match networks.position(|network| !network.internal) {
        Some(at) => Ok(Some(at)),
        None => Err(Error::Unsupported("publishing ports on internal networks only".to_owned())),
    }
}

/// The namespace to be made.
///
/// # Errors
/// [`Error::Invalid`] for a network that has no bridge.
pub fn blueprint(members: &[Member<'_>]) -> Result<Blueprint, Error> {
    let mut interfaces = Vec::with_capacity(members.len());
    let (mut routed4, mut routed6) = (false, false);
    for member in members {
        let (network, endpoint) = (member.network, member.endpoint);
        if network.driver != Driver::Bridge {
            return Err(Error::Invalid {
                field: "network",
                value: network.name.to_string(),
                reason: "it has no endpoints".to_owned(),
            });
        }
        let net4 = endpoint.ipv4.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok());
        let net6 = endpoint.ipv6.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok());
        // One default route a family: the first network's that has a way out.
        let gateway4 = endpoint.gateway4.filter(|_| !routed4);
        let gateway6 = endpoint.gateway6.filter(|_| !routed6);
        routed4 |= gateway4.is_some();
        routed6 |= gateway6.is_some();
        interfaces.push(Interface {
            name: endpoint.interface.clone(),
            bridge: member.bridge,
            mac: endpoint.mac,
            mtu: network.mtu,
            addresses: net4.into_iter().chain(net6).collect(),
            gateways: gateway4.map(IpAddr::V4).into_iter().chain(gateway6.map(IpAddr::V6)).collect(),
        });
    }
    Ok(Blueprint {
        interfaces,
        ipv6: members.iter().any(|member| member.endpoint.ipv6.is_some()),
        names: members.iter().any(|member| member.network.resolves_names()),
    })
}
