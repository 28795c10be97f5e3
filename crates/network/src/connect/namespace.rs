//! A container's network namespace: made on a thread of its own, which enters it and ends.
//!
//! The thread begins before anything about the namespace is known: a new one costs the kernel as much time
//! as leases and records take. It then waits for its blueprint.
//!
//! The thread speaks to the host through a socket that was opened before, and to the new namespace through
//! one opened after: netlink sockets belong to the namespace they were born in.
//!
//! The name service does not listen on port 53 itself: a container that runs a name server of its own on
//! every address (`0.0.0.0:53`) must be able to. It has any free port, to which the namespace's own
//! firewall redirects what is sent to 127.0.0.11:53.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::Made;
use crate::bridge::{index, set_sysctl};
use crate::dns::NAME_SERVER;
use crate::firewall::resolver;
use crate::netlink::message::Batch;
use crate::netlink::{Channel, NetlinkError, route};
use crate::request::{ConnectRequest, Interface};
use crate::{Error, random};

const LOOPBACK: u32 = 1;
/// What a new interface is: addresses are usable at once, and nothing is learned from neighbours.
const SPEAKS_IPV6: &[(&str, &str)] = &[("accept_dad", "0"), ("accept_ra", "0")];
const NO_IPV6: &[(&str, &str)] = &[("disable_ipv6", "1")];
/// As the first, after the second.
const SPEAKS_IPV6_NOW: &[(&str, &str)] = &[("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")];

/// A namespace, decided.
#[derive(Debug, Default)]
pub struct Blueprint {
    /// What it has besides a loopback.
    pub interfaces: Vec<Interface>,
    /// Whether any of them speaks IPv6.
    pub ipv6: bool,
    /// Whether a name service listens inside.
    pub names: bool,
}

/// A namespace in the making.
#[derive(Debug)]
pub struct Maker<'scope> {
    blueprint: Sender<Blueprint>,
    thread: ScopedJoinHandle<'scope, Result<Made, Error>>,
}

/// Begins to make one, or goes into the one that is given. `host`: links of the host's namespace; the user's
/// settings are written last.
///
/// # Errors
/// [`Error::Namespace`] when there can be no thread.
pub fn begin<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    host: Option<&'env Channel>,
    request: &'env ConnectRequest,
) -> Result<Maker<'scope>, Error> {
    let (blueprint, decided) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("namespace".to_owned())
        .spawn_scoped(scope, move || inside(host, request, &decided))
        .map_err(failed("start a thread"))?;
    Ok(Maker { blueprint, thread })
}

impl<'scope> Maker<'scope> {
    /// Says what it has to be; [`finish`] waits for it.
    #[must_use]
    pub fn decide(self, blueprint: Blueprint) -> ScopedJoinHandle<'scope, Result<Made, Error>> {
        // A thread that has failed already does not listen any more, and says why when it is joined.
        let _ = self.blueprint.send(blueprint);
        self.thread
    }
}

/// Waits for a namespace.
///
/// # Errors
/// [`Error::Namespace`], [`Error::Netlink`], [`Error::Sysctl`].
pub fn finish(thread: ScopedJoinHandle<'_, Result<Made, Error>>) -> Result<Made, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs on a thread that ends afterwards: it never comes back to the host's namespace.
fn inside(
    host: Option<&Channel>,
    request: &ConnectRequest,
    decided: &Receiver<Blueprint>,
) -> Result<Made, Error> {
    match &request.namespace {
        None => cata_sys::namespace::unshare(UnshareFlags::NEWNET).map_err(failed("unshare"))?,
        Some(given) => {
            let link = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(given.as_fd(), link).map_err(failed("enter"))?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())
        .map_err(failed("open /proc/thread-self/ns/net"))?;
    let own = Channel::open(cata_sys::netlink::ROUTE).map_err(Error::netlink("links in the container"))?;
    // Who began has given up, and knows why.
    let Ok(blueprint) = decided.recv() else { return Ok(Made { namespace, dns_sockets: Vec::new() }) };
    if !blueprint.interfaces.is_empty() {
        defaults(if blueprint.ipv6 { SPEAKS_IPV6 } else { NO_IPV6 })?;
    }
    if let Some(host) = host {
        attach(host, namespace.as_fd(), &blueprint.interfaces)?;
    }
    configure(&own, &blueprint.interfaces)?;
    let dns_sockets = if blueprint.names { name_service()? } else { Vec::new() };
    for (key, value) in &request.sysctls {
        set_sysctl(key, value)?;
    }
    Ok(Made { namespace, dns_sockets })
}

/// For interfaces that come.
fn defaults(settings: &[(&str, &str)]) -> Result<(), Error> {
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

/// What is changed in a namespace that is in use.
#[derive(Debug, Default)]
pub struct Change {
    /// An interface that comes, without default routes.
    pub joins: Option<Interface>,
    /// Interfaces that go; those that are not there are well.
    pub leave: Vec<String>,
    /// Default routes in the place of those there are.
    pub routes: Vec<(String, IpAddr)>,
    /// Whether a name service is to listen inside.
    pub names: bool,
}

/// Changes a namespace; returns the sockets of the name service. `host`: links of the host's namespace.
///
/// # Errors
/// [`Error::Namespace`], [`Error::Netlink`], [`Error::Sysctl`]; an interface that came is gone then.
pub fn change(host: &Channel, namespace: BorrowedFd<'_>, change: &Change) -> Result<Vec<OwnedFd>, Error> {
    let work = || {
        let link = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace, link).map_err(failed("enter"))?;
        let own =
            Channel::open(cata_sys::netlink::ROUTE).map_err(Error::netlink("links in the container"))?;
        let outcome = alter(host, namespace, &own, change);
        if let (Err(_), Some(interface)) = (&outcome, &change.joins) {
            let _ = detach(&own, &interface.name);
        }
        outcome
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn alter(
    host: &Channel,
    namespace: BorrowedFd<'_>,
    own: &Channel,
    change: &Change,
) -> Result<Vec<OwnedFd>, Error> {
    for interface in &change.leave {
        detach(own, interface)?;
    }
    if let Some(interface) = &change.joins {
        let ipv6 = interface.addresses.iter().any(|address| address.addr().is_ipv6());
        defaults(if ipv6 { SPEAKS_IPV6_NOW } else { NO_IPV6 })?;
        attach(host, namespace, std::slice::from_ref(interface))?;
        configure(own, std::slice::from_ref(interface))?;
    }
    let mut batch = Batch::new();
    for (interface, gateway) in &change.routes {
        // Whoever may change interfaces inside may have taken it away or renamed it: then it has routes of his.
        if let Some(index) = index(own, interface) {
            route::set_default_route(&mut batch, index, *gateway);
        }
    }
    own.apply(&batch).map_err(Error::netlink("set the container's default route"))?;
    if change.names { name_service() } else { Ok(Vec::new()) }
}

/// The other end on the host goes with it.
fn detach(own: &Channel, interface: &str) -> Result<(), Error> {
    let Some(index) = index(own, interface) else { return Ok(()) };
    let mut batch = Batch::new();
    route::delete_link(&mut batch, index);
    match own.apply(&batch) {
        Err(refused) if refused.is(rustix::io::Errno::NODEV) => Ok(()),
        outcome => outcome.map_err(Error::netlink(format!("delete the container's interface {interface}"))),
    }
}

/// The host's half: pairs of interfaces, their place on the bridges.
fn attach(host: &Channel, namespace: BorrowedFd<'_>, interfaces: &[Interface]) -> Result<(), Error> {
    let names: Vec<String> = interfaces.iter().map(|_| random::interface()).collect();
    let mut batch = Batch::new();
    for (interface, name) in interfaces.iter().zip(&names) {
        let veth = route::Veth {
            name,
            bridge: interface.bridge,
            peer: &interface.name,
            peer_mac: interface.mac,
            namespace,
            mtu: interface.mtu,
        };
        route::add_veth(&mut batch, &veth);
    }
    host.apply(&batch).map_err(Error::netlink("make the container's interfaces"))?;
    let mut batch = Batch::new();
    for (interface, name) in interfaces.iter().zip(&names) {
        let port = index(host, name).ok_or_else(|| missing(name))?;
        route::set_forwarding(&mut batch, port, interface.mac);
        if bridged_packets_are_filtered() {
            route::set_hairpin(&mut batch, port);
        }
    }
    host.apply(&batch).map_err(Error::netlink("configure the bridge's ports"))
}

/// In place of pairs of interfaces: tap devices on the bridges. They are gone with their descriptors.
pub(super) fn taps(host: &Channel, interfaces: Vec<Interface>) -> Result<Vec<(OwnedFd, Interface)>, Error> {
    let mut made = Vec::with_capacity(interfaces.len());
    let mut batch = Batch::new();
    for interface in interfaces {
        let name = random::interface();
        let tap = cata_sys::tap::make(&name).map_err(|errno| match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
                Error::Unsupported(
                    "networks of virtual machines without the kernel's driver `tun`".to_owned(),
                )
            }
            errno => failed("make a tap device")(errno),
        })?;
        let port = index(host, &name).ok_or_else(|| missing(&name))?;
        route::set_master(&mut batch, port, interface.bridge, interface.mtu);
        route::set_forwarding(&mut batch, port, interface.mac);
        if bridged_packets_are_filtered() {
            route::set_hairpin(&mut batch, port);
        }
        made.push((tap, interface));
    }
    host.apply(&batch).map_err(Error::netlink("put the machine's tap devices on their bridges"))?;
    Ok(made)
}

/// `br_netfilter`, loaded by other container engines and firewalls.
fn bridged_packets_are_filtered() -> bool {
    fs::exists("/proc/sys/net/bridge").unwrap_or(false)
}

/// The container's half: everything up, addresses, routes.
fn configure(own: &Channel, interfaces: &[Interface]) -> Result<(), Error> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    for interface in interfaces {
        let index = index(own, &interface.name).ok_or_else(|| missing(&interface.name))?;
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
