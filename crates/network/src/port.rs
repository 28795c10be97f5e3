//! Published ports: a bound socket keeps a host port from every other program, and from other containers.
//!
//! The socket never listens: the firewall redirects before it would be asked. Whoever holds it, and nobody
//! else, touches the port's entry in the firewall's maps. Where the firewall is not ours, it listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::Error;
use crate::request::{Endpoint, PortRequest, PublishedPort, Transport};

/// How often another free port is tried when one is only free in one family.
const ATTEMPTS: usize = 16;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Which families the container can be reached in, and where ports go when the request names no address.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The container's address.
    pub v4: Option<Ipv4Addr>,
    /// The container's address.
    pub v6: Option<Ipv6Addr>,
    /// The network's `host_binding_ipv4`.
    pub host_binding: Option<Ipv4Addr>,
}

impl Target {
    /// Where an endpoint is reached.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        Self {
            v4: endpoint.ipv4.map(|(address, _)| address),
            v6: endpoint.ipv6.map(|(address, _)| address),
            host_binding: None,
        }
    }

    /// The container's address in the family of a published port.
    #[must_use]
    pub fn address(&self, port: &PublishedPort) -> Option<IpAddr> {
        match port.host_ip {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// PURE: the host addresses on which a port is to be published.
///
/// # Errors
/// [`Error::Unsupported`] where the kernel cannot redirect.
pub fn host_addresses(request: &PortRequest, target: &Target) -> Result<Vec<IpAddr>, Error> {
    match request.host_ip {
        Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) => {
            Err(Error::Unsupported("publishing on [::1], which Linux cannot redirect,".to_owned()))
        }
        Some(IpAddr::V6(address)) if target.v6.is_none() => {
            Err(Error::Unsupported(format!("publishing on [{address}] without an IPv6 network")))
        }
        Some(IpAddr::V4(address)) if target.v4.is_none() => {
            Err(Error::Unsupported(format!("publishing on {address} without an IPv4 network")))
        }
        Some(address) => Ok(vec![address]),
        None => {
            let v4 = target.v4.map(|_| IpAddr::V4(target.host_binding.unwrap_or(Ipv4Addr::UNSPECIFIED)));
            let v6 = target.v6.filter(|_| target.host_binding.is_none());
            Ok(v4.into_iter().chain(v6.map(|_| IpAddr::V6(Ipv6Addr::UNSPECIFIED))).collect())
        }
    }
}

/// What the sockets of published ports are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// To keep the port: the firewall redirects before they would be asked.
    Silent,
    /// To be served by [`crate::forward`].
    Listening,
}

/// Reserves one published port on all of its host addresses.
///
/// # Errors
/// [`Error::PortInUse`] naming the address and port, [`Error::Port`].
pub fn reserve(
    request: &PortRequest,
    target: &Target,
    how: Hold,
) -> Result<Vec<(PublishedPort, OwnedFd)>, Error> {
    let addresses = host_addresses(request, target)?;
    let mut last = None;
    for host_port in candidates(request) {
        match reserve_once(request, host_port, &addresses, how) {
            Err(error @ Error::PortInUse { .. }) => last = Some(error),
            outcome => return outcome,
        }
    }
    last.map_or(Ok(Vec::new()), Err)
}

/// PURE: the host ports to try, in order; 0 leaves the choice to the kernel.
fn candidates(request: &PortRequest) -> Vec<u16> {
    match request.host_port {
        0 => vec![0; ATTEMPTS],
        first => (first..=request.host_port_last.max(first)).collect(),
    }
}

/// Whether nobody holds the port; `hold` runs while we do.
pub fn if_free(port: &PublishedPort, hold: impl FnOnce()) {
    if let Ok(_reservation) = bind(port.host_ip, port.host_port, port.transport, Hold::Silent) {
        hold();
    }
}

fn reserve_once(
    request: &PortRequest,
    mut host_port: u16,
    addresses: &[IpAddr],
    how: Hold,
) -> Result<Vec<(PublishedPort, OwnedFd)>, Error> {
    let mut reserved = Vec::with_capacity(addresses.len());
    for &host_ip in addresses {
        let (socket, port) = bind(host_ip, host_port, request.transport, how)?;
        // The same port in both families.
        host_port = port;
        let container_port = request.container_port;
        reserved.push((
            PublishedPort { host_ip, host_port, container_port, transport: request.transport },
            socket,
        ));
    }
    Ok(reserved)
}

fn bind(address: IpAddr, port: u16, transport: Transport, how: Hold) -> Result<(OwnedFd, u16), Error> {
    let failed = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::ADDRINUSE => Error::PortInUse { address, port },
        errno => Error::Port { address, port, source: errno.into() },
    };
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).map_err(failed)?;
    }
    if how == Hold::Listening && transport == Transport::Tcp {
        // Connections of a predecessor that are not quite over.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
    }
    if how == Hold::Silent && transport == Transport::Udp {
        // What is not redirected (to ::1) piles up here: as little as the kernel allows.
        sockopt::set_socket_recv_buffer_size(&socket, 0).map_err(failed)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port)).map_err(failed)?;
    if how == Hold::Listening {
        rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
        if transport == Transport::Tcp {
            rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
        }
    }
    let bound = rustix::net::getsockname(&socket).map_err(failed)?;
    let bound = SocketAddr::try_from(bound).map_err(|_| Error::Port {
        address,
        port,
        source: io::Error::from(io::ErrorKind::InvalidData),
    })?;
    Ok((socket, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host_ip: Option<&str>, host_port: u16) -> PortRequest {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortRequest { host_ip, host_port, host_port_last: 0, container_port: 80, transport: Transport::Tcp }
    }

    const V4: Target = Target { v4: Some(Ipv4Addr::new(172, 17, 0, 2)), v6: None, host_binding: None };

    #[test]
    fn host_addresses_follow_the_containers_families() {
        let both = Target { v6: Some(Ipv6Addr::LOCALHOST), ..V4 };
        let all = |target: &Target| host_addresses(&request(None, 1), target).unwrap();
        assert_eq!(all(&V4), ["0.0.0.0".parse::<IpAddr>().unwrap()]);
        assert_eq!(all(&both).len(), 2);
        assert!(host_addresses(&request(Some("::1"), 1), &both).is_err());
        assert!(host_addresses(&request(Some("::"), 1), &V4).is_err());
        let bound = Target { host_binding: Some(Ipv4Addr::LOCALHOST), ..both };
        assert_eq!(all(&bound), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn reserve_taken_port_names_it() {
        let held = reserve(&request(Some("127.0.0.1"), 0), &V4, Hold::Silent).unwrap();
        let port = held[0].0.host_port;
        assert_ne!(port, 0);
        let error = reserve(&request(Some("127.0.0.1"), port), &V4, Hold::Silent).unwrap_err();
        assert_eq!(error.to_string(), format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        let mut ran = false;
        if_free(&held[0].0, || ran = true);
        assert!(!ran);
        let port = held[0].0;
        drop(held);
        if_free(&port, || ran = true);
        assert!(ran);
    }

    #[test]
    fn reserve_range_takes_its_first_free_port() {
        // A port that is taken, and whatever follows it.
        let held = reserve(&request(Some("127.0.0.3"), 0), &V4, Hold::Silent).unwrap();
        let first = held[0].0.host_port;
        let last = first.saturating_add(50);
        let range = PortRequest { host_port_last: last, ..request(Some("127.0.0.3"), first) };
        let port = reserve(&range, &V4, Hold::Silent).unwrap()[0].0.host_port;
        assert!(port > first && port <= last, "{port} of {first}-{last}");
        let full = PortRequest { host_port_last: first, ..range };
        assert!(matches!(reserve(&full, &V4, Hold::Silent), Err(Error::PortInUse { .. })));
    }
}
