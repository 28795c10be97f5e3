//! A container's network namespace: made on a thread of its own, which enters it and ends.
//!
//! The thread speaks to the host through a socket that was opened before, and to the new namespace through
//! one opened after: netlink sockets belong to the namespace they were born in.
//!
//! The name service does not listen on port 53 itself: a container that runs a name server of its own on
//! every address (`0.0.0.0:53`) must be able to. It has any free port, to which the namespace's own
//! firewall redirects what is sent to 127.0.0.11:53.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use ipnet::IpNet;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::Made;
use crate::bridge::{index, set_sysctl};
use crate::firewall::resolver;
use crate::netlink::message::Batch;
use crate::netlink::{Channel, NetlinkError, route};
use crate::request::ConnectRequest;
use crate::{Error, networks};

/// Where the name service listens, as images hard-code it.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const LOOPBACK: u32 = 1;

/// A namespace, decided.
#[derive(Debug)]
pub struct Blueprint<'b> {
    /// What it has besides a loopback.
    pub interfaces: Vec<Interface<'b>>,
    /// Whether any of them speaks IPv6.
    pub ipv6: bool,
    /// Whether a name service listens inside.
    pub names: bool,
    /// The user's settings, written last.
    pub sysctls: &'b [(String, String)],
}

/// One interface.
#[derive(Debug)]
pub struct Interface<'b> {
    /// `eth0`.
    pub name: &'b str,
    /// The bridge that the other end is on.
    pub bridge: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet, if not the default.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Where default routes lead.
    pub gateways: Vec<IpAddr>,
}

impl<'b> Blueprint<'b> {
    /// Only a loopback.
    #[must_use]
    pub fn lonely(request: &'b ConnectRequest) -> Self {
        Self { interfaces: Vec::new(), ipv6: true, names: false, sysctls: &request.sysctls }
    }

    /// Whether a name service is to be run.
    #[must_use]
    pub fn serves_names(&self) -> bool {
        self.names
    }
}

/// Makes it. `host`: links of the host's namespace, needed when there are interfaces.
///
/// # Errors
/// [`Error::Namespace`], [`Error::Netlink`], [`Error::Sysctl`].
pub fn make(host: Option<&Channel>, blueprint: &Blueprint<'_>) -> Result<Made, Error> {
    thread::scope(|scope| {
        let maker = thread::Builder::new()
            .name("namespace".to_owned())
            .stack_size(128 * 1024)
            .spawn_scoped(scope, || inside(host, blueprint))
            .map_err(failed("start a thread"))?;
        maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs on a thread that ends afterwards: it never comes back to the host's namespace.
fn inside(host: Option<&Channel>, blueprint: &Blueprint<'_>) -> Result<Made, Error> {
    cata_sys::namespace::unshare(UnshareFlags::NEWNET).map_err(failed("unshare"))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())
        .map_err(failed("open /proc/thread-self/ns/net"))?;
    let own = Channel::open(cata_sys::netlink::ROUTE).map_err(Error::netlink("links in the container"))?;
    defaults(blueprint)?;
    if let Some(host) = host {
        attach(host, &namespace, blueprint)?;
    }
    configure(&own, blueprint)?;
    let dns_sockets = if blueprint.names { name_service()? } else { Vec::new() };
    for (key, value) in blueprint.sysctls {
        set_sysctl(key, value)?;
    }
    Ok(Made { namespace, dns_sockets })
}

/// Before there is an interface: addresses are usable at once, and nothing is learned from neighbours.
fn defaults(blueprint: &Blueprint<'_>) -> Result<(), Error> {
    if blueprint.interfaces.is_empty() {
        return Ok(());
    }
    let settings: &[(&str, &str)] =
        if blueprint.ipv6 { &[("accept_dad", "0"), ("accept_ra", "0")] } else { &[("disable_ipv6", "1")] };
    for (name, value) in settings {
        match fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value) {
            // A kernel without IPv6.
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let key = format!("net.ipv6.conf.default.{name}");
                return Err(Error::Sysctl { key, value: (*value).to_owned(), source });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The host's half: pairs of interfaces, their place on the bridges.
fn attach(host: &Channel, namespace: &OwnedFd, blueprint: &Blueprint<'_>) -> Result<(), Error> {
    let names: Vec<String> = blueprint.interfaces.iter().map(|_| networks::random_interface()).collect();
    let mut batch = Batch::new();
    for (interface, name) in blueprint.interfaces.iter().zip(&names) {
        let veth = route::Veth {
            name,
            bridge: interface.bridge,
            peer: interface.name,
            peer_mac: interface.mac,
            namespace: namespace.as_fd(),
            mtu: interface.mtu,
        };
        route::add_veth(&mut batch, &veth);
    }
    host.apply(&batch).map_err(Error::netlink("make the container's interfaces"))?;
    let mut batch = Batch::new();
    for (interface, name) in blueprint.interfaces.iter().zip(&names) {
        let port = index(host, name).ok_or_else(|| missing(name))?;
        route::set_forwarding(&mut batch, port, interface.mac);
        if bridged_packets_are_filtered() {
            route::set_hairpin(&mut batch, port);
        }
    }
    host.apply(&batch).map_err(Error::netlink("configure the bridge's ports"))
}

/// `br_netfilter`, loaded by other container engines and firewalls.
fn bridged_packets_are_filtered() -> bool {
    fs::exists("/proc/sys/net/bridge").unwrap_or(false)
}

/// The container's half: everything up, addresses, routes.
fn configure(own: &Channel, blueprint: &Blueprint<'_>) -> Result<(), Error> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    for interface in &blueprint.interfaces {
        let index = index(own, interface.name).ok_or_else(|| missing(interface.name))?;
        for address in &interface.addresses {
            route::add_address(&mut batch, index, *address);
        }
        route::set_up(&mut batch, index);
        for gateway in &interface.gateways {
            route::add_default_route(&mut batch, index, *gateway);
        }
    }
    own.apply(&batch).map_err(Error::netlink("configure the container's interfaces"))
}

fn name_service() -> Result<Vec<OwnedFd>, Error> {
    let (udp, udp_port) = listen(SocketType::DGRAM).map_err(failed("listen for names"))?;
    let (tcp, tcp_port) = listen(SocketType::STREAM).map_err(failed("listen for names"))?;
    let firewall = Channel::open(cata_sys::netlink::NETFILTER).map_err(Error::netlink("firewall"))?;
    firewall
        .apply(&resolver::redirection(NAME_SERVER, udp_port, tcp_port))
        .map_err(Error::netlink("redirect 127.0.0.11:53"))?;
    Ok(vec![udp, tcp])
}

fn listen(kind: SocketType) -> Result<(OwnedFd, u16), rustix::io::Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::V4(SocketAddrV4::new(NAME_SERVER, 0)))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 16)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

fn missing(interface: &str) -> Error {
    let source = NetlinkError::Socket(rustix::io::Errno::NODEV.into());
    Error::netlink(format!("find interface {interface}"))(source)
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Namespace { action, source: source.into() }
}
