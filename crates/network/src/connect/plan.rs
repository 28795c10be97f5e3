//! PURE: from a wish, networks and leases to endpoints and the blueprint of a namespace.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::namespace::Blueprint;
use crate::Error;
use crate::record::{Driver, Network};
use crate::request::{ConnectRequest, Endpoint, EndpointRequest, Interface, Who};

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
pub fn check(wishes: &[EndpointRequest]) -> Result<(), Error> {
    let invalid = |field, value: &str, reason: &str| {
        Err(Error::Invalid { field, value: value.to_owned(), reason: reason.to_owned() })
    };
    for (at, wish) in wishes.iter().enumerate() {
        if wishes[..at].iter().any(|other| other.network == wish.network) {
            return invalid("network", wish.network.as_str(), "joined twice");
        }
        if let Some(alias) = wish.aliases.iter().find(|alias| !super::names::is_resolvable(alias)) {
            return invalid("alias", alias, "not a host name");
        }
        if let Some(link) = wish.links.iter().find(|link| !super::names::is_resolvable(&link.alias)) {
            return invalid("link", &link.alias, "not a host name");
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
    who: &Who,
    wish: &EndpointRequest,
    interface: String,
    network: &Network,
    [v4, v6]: [Option<IpAddr>; 2],
) -> Endpoint {
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
    let mut aliases: Vec<String> = vec![who.name.to_string()];
    let others = wish.aliases.iter().map(String::as_str);
    for name in others.chain([who.container.short(), who.hostname.as_str()]) {
        if super::names::is_resolvable(name) && !aliases.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            aliases.push(name.to_owned());
        }
    }
    Endpoint {
        network: network.name.clone(),
        network_id: network.id.clone(),
        endpoint_id: crate::random::id(),
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
            .unwrap_or_else(crate::random::mac),
        interface,
        aliases,
        gateway_priority: wish.gateway_priority,
    }
}

/// Docker's: the address says whose it is, and a successor at the same address needs no new ARP entries.
fn mac_of([a, b, c, d]: [u8; 4]) -> [u8; 6] {
    [0x02, 0x42, a, b, c, d]
}

/// The lowest interface name that none of these endpoints has.
#[must_use]
pub fn free_interface(endpoints: &[Endpoint]) -> String {
    let free = |name: &String| !endpoints.iter().any(|endpoint| endpoint.interface == *name);
    (0..).map(|number| format!("eth{number}")).find(free).unwrap_or_default()
}

/// Whose default route a container has, in a family: the one with the highest priority, then the network whose name
/// comes first. `None`: no network leads out.
#[must_use]
pub fn gateway(endpoints: &[Endpoint], v6: bool) -> Option<usize> {
    first(endpoints, |endpoint| if v6 { endpoint.gateway6.is_some() } else { endpoint.gateway4.is_some() })
}

/// Whose endpoint published ports lead to, by the same rule.
#[must_use]
pub fn carrier(endpoints: &[Endpoint]) -> Option<usize> {
    first(endpoints, |endpoint| endpoint.gateway4.is_some() || endpoint.gateway6.is_some())
}

fn first(endpoints: &[Endpoint], leads_out: impl Fn(&Endpoint) -> bool) -> Option<usize> {
    let out = endpoints.iter().enumerate().filter(|(_, endpoint)| leads_out(endpoint));
    let best = out.min_by_key(|(_, endpoint)| {
        (std::cmp::Reverse(endpoint.gateway_priority), endpoint.network.as_str())
    });
    best.map(|(at, _)| at)
}

/// The default routes of an endpoint, one of these.
#[must_use]
pub fn gateways(endpoints: &[Endpoint], at: usize) -> Vec<IpAddr> {
    let of = |v6: bool| Some(&endpoints[at]).filter(|_| gateway(endpoints, v6) == Some(at));
    let v4 = of(false).and_then(|endpoint| endpoint.gateway4).map(IpAddr::V4);
    let v6 = of(true).and_then(|endpoint| endpoint.gateway6).map(IpAddr::V6);
    v4.into_iter().chain(v6).collect()
}

/// Which endpoint ports are published on; `None` when nothing is published.
///
/// # Errors
/// [`Error::Unsupported`] when ports are wanted and every network is internal.
pub fn exposed(request: &ConnectRequest, endpoints: &[Endpoint]) -> Result<Option<usize>, Error> {
    if request.ports.is_empty() {
        return Ok(None);
    }
    match carrier(endpoints) {
        Some(at) => Ok(Some(at)),
        None => Err(Error::Unsupported("publishing ports on internal networks only".to_owned())),
    }
}

/// The interface of an endpoint, without its routes.
///
/// # Errors
/// [`Error::Invalid`] for a network that has no bridge.
pub fn interface(member: &Member<'_>) -> Result<Interface, Error> {
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
    Ok(Interface {
        name: endpoint.interface.clone(),
        bridge: member.bridge,
        mac: endpoint.mac,
        mtu: network.mtu,
        addresses: net4.into_iter().chain(net6).collect(),
        gateways: Vec::new(),
    })
}

/// The namespace to be made.
///
/// # Errors
/// [`Error::Invalid`] for a network that has no bridge.
pub fn blueprint(members: &[Member<'_>]) -> Result<Blueprint, Error> {
    let endpoints: Vec<Endpoint> = members.iter().map(|member| member.endpoint.clone()).collect();
    let mut interfaces = Vec::with_capacity(members.len());
    for (at, member) in members.iter().enumerate() {
        interfaces.push(Interface { gateways: gateways(&endpoints, at), ..interface(member)? });
    }
    Ok(Blueprint {
        interfaces,
        ipv6: members.iter().any(|member| member.endpoint.ipv6.is_some()),
        names: members.iter().any(|member| member.network.resolves_names()),
    })
}

#[cfg(test)]
mod tests {
    use cata_spec::Name;

    use super::*;

    fn on(network: &str, priority: i32, v4: bool, v6: bool) -> Endpoint {
        Endpoint {
            network: Name::parse(network).unwrap(),
            network_id: String::new(),
            endpoint_id: String::new(),
            ipv4: None,
            gateway4: v4.then_some(std::net::Ipv4Addr::LOCALHOST),
            ipv6: None,
            gateway6: v6.then_some(std::net::Ipv6Addr::LOCALHOST),
            mac: [2; 6],
            interface: network.replace('n', "eth"),
            aliases: Vec::new(),
            gateway_priority: priority,
        }
    }

    #[test]
    fn gateway_is_by_priority_then_by_name() {
        let list = [on("sea", 0, true, false), on("air", 0, true, true), on("inn", 9, false, false)];
        assert_eq!(
            (gateway(&list, false), gateway(&list, true), carrier(&list)),
            (Some(1), Some(1), Some(1))
        );
        let list = [on("sea", 0, true, false), on("air", -1, true, true)];
        assert_eq!(
            (gateway(&list, false), gateway(&list, true), carrier(&list)),
            (Some(0), Some(1), Some(0))
        );
        assert_eq!((gateways(&list, 0).len(), gateways(&list, 1).len()), (1, 1));
        assert_eq!(carrier(&[on("inn", 0, false, false)]), None);
    }

    #[test]
    fn free_interface_is_the_lowest() {
        let mut list = vec![on("n0", 0, true, true), on("n2", 0, true, true)];
        assert_eq!(free_interface(&list), "eth1");
        list.clear();
        assert_eq!(free_interface(&list), "eth0");
    }
}
