//! PURE: what the name service of a container has to know.

use std::net::{IpAddr, SocketAddr};

use super::plan::Member;
use crate::dns::{DnsPlan, resolv_conf};
use crate::request::Link;

/// What the service answers for the host, on every network.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.catamaran.internal"];

/// The plan of the name service of a container, in the host's network or `inside` a user's.
pub(crate) fn plan<'m>(
    inside: bool,
    (upstream, links): (&[IpAddr], &[Link]),
    members: impl Iterator<Item = Member<'m>>,
) -> DnsPlan {
    let members: Vec<Member<'_>> = members.collect();
    // Inside, a gateway is not the host.
    let gateways = members.iter().filter(|_| !inside).flat_map(|member| {
        let endpoint = member.endpoint;
        endpoint.gateway4.map(IpAddr::V4).into_iter().chain(endpoint.gateway6.map(IpAddr::V6))
    });
    let upstream = match upstream {
        [] if inside => vec![SocketAddr::new(crate::inside::NAME_SERVER, 53)],
        [] => resolv_conf::host_servers(),
        given => given.iter().map(|address| SocketAddr::new(*address, 53)).collect(),
    };
    DnsPlan {
        networks: members
            .iter()
            .filter(|member| member.network.resolves_names())
            .map(|member| member.directory.to_owned())
            .collect(),
        upstream,
        hosts: gateways.flat_map(|address| HOST_NAMES.map(|name| (name.to_owned(), address))).collect(),
        links: links
            .iter()
            .map(|link| (link.alias.to_ascii_lowercase(), link.to.to_ascii_lowercase()))
            .collect(),
    }
}
