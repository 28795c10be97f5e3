//! A network on the host: its bridge, the bridge's addresses and settings, its place in the firewall.
//!
//! Made when a container first needs it, and again whenever it is found missing (after a reboot, after
//! `nft flush ruleset`).

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;

use crate::Error;
use crate::firewall::Firewall;
use crate::netlink::message::Batch;
use crate::netlink::{Channel, nftables, route};
use crate::record::Network;
use crate::request::PublishedPort;

/// The host's side: its links and its firewall.
#[derive(Debug)]
pub struct Host {
    /// Links, addresses, routes.
    pub route: Channel,
    /// The firewall.
    pub firewall: Firewall,
}

impl Host {
    /// Opens the calling thread's network namespace as the host.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        let route = Channel::open(cata_sys::netlink::ROUTE).map_err(Error::netlink("links"))?;
        Ok(Self { route, firewall: Firewall::open()? })
    }

    /// The bridge's index, if everything is there.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn find(&self, network: &Network) -> Result<Option<u32>, Error> {
        let Some(index) = index(&self.route, &network.interface) else { return Ok(None) };
        Ok(self.firewall.knows(network)?.then_some(index))
    }

    /// Makes whatever is missing. `published`: what containers on it have published, for a firewall that
    /// lost it. Idempotent; the caller holds the network's lock.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Sysctl`].
    pub fn make(&self, network: &Network, published: &[(PublishedPort, IpAddr)]) -> Result<u32, Error> {
        let action = || format!("make bridge {} of network {}", network.interface, network.name);
        let mut batch = Batch::new();
        route::add_bridge(&mut batch, &network.interface, network.mac, network.mtu);
        there(self.route.apply(&batch)).map_err(Error::netlink(action()))?;
        let index = index(&self.route, &network.interface).ok_or_else(|| {
            Error::netlink(action())(crate::netlink::NetlinkError::Socket(Errno::NODEV.into()))
        })?;
        settings(network)?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, index);
        self.route.apply(&batch).map_err(Error::netlink(action()))?;
        for pool in &network.pools {
            let mut batch = Batch::new();
            if let Ok(address) = IpNet::new(pool.gateway, pool.subnet.prefix_len()) {
                route::add_address(&mut batch, index, address);
            }
            there(self.route.apply(&batch)).map_err(Error::netlink(action()))?;
        }
        let guard = forwarding(network)?;
        self.firewall.install(network, published, &guard)?;
        Ok(index)
    }

    /// Takes the bridge and its place in the firewall away.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn remove(&self, network: &Network) -> Result<(), Error> {
        self.firewall.remove(network)?;
        let Some(index) = index(&self.route, &network.interface) else { return Ok(()) };
        let mut batch = Batch::new();
        route::delete_link(&mut batch, index);
        match self.route.apply(&batch) {
            Err(refused) if refused.is(Errno::NODEV) => Ok(()),
            outcome => outcome.map_err(Error::netlink(format!("delete bridge {}", network.interface))),
        }
    }

    /// Subnets that the host uses by its addresses and routes.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn subnets(&self) -> Result<Vec<IpNet>, Error> {
        let mut found = Vec::new();
        let mut batch = Batch::new();
        route::list_addresses(&mut batch);
        self.route
            .query(&batch, |kind, body| {
                found.extend(route::address_of(kind, body).map(|(_, net)| net.trunc()));
            })
            .map_err(Error::netlink("list addresses"))?;
        let mut batch = Batch::new();
        route::list_routes(&mut batch);
        self.route
            .query(&batch, |kind, body| found.extend(route::destination_of(kind, body)))
            .map_err(Error::netlink("list routes"))?;
        Ok(found)
    }
}

/// An interface's index in the channel's namespace.
#[must_use]
pub fn index(channel: &Channel, name: &str) -> Option<u32> {
    rustix::net::netdevice::name_to_index(channel.socket(), name).ok()
}

/// Writes `net.ipv4.ip_forward` and its like in the calling thread's network namespace.
///
/// # Errors
/// [`Error::Sysctl`].
pub fn set_sysctl(key: &str, value: &str) -> Result<(), Error> {
    let failed = |source| Error::Sysctl { key: key.to_owned(), value: value.to_owned(), source };
    if !key.starts_with("net.") || key.contains(['/', '\0']) || key.split('.').any(str::is_empty) {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    fs::write(path(key), value).map_err(failed)
}

fn path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn settings(network: &Network) -> Result<(), Error> {
    let interface = &network.interface;
    // An interface name may hold a dot: these keys are paths already.
    let set = |family: &str, name: &str, value: &str| {
        let key = format!("net/{family}/conf/{interface}/{name}");
        fs::write(format!("/proc/sys/{key}"), value).or_else(|source| match source.kind() {
            // A kernel without IPv6.
            io::ErrorKind::NotFound if family == "ipv6" => Ok(()),
            _ => Err(Error::Sysctl { key, value: value.to_owned(), source }),
        })
    };
    // Lets what was published on 127.0.0.1 be reached from there; the chain `raw` closes what else it opens.
    set("ipv4", "route_localnet", "1")?;
    set("ipv6", "accept_ra", "0")?;
    set("ipv6", "disable_ipv6", if network.pool(true).is_some() { "0" } else { "1" })
}

/// Lets the host forward in the network's families, and returns those that it did not forward before.
fn forwarding(network: &Network) -> Result<Vec<u8>, Error> {
    let mut switched = Vec::new();
    if network.internal {
        return Ok(switched);
    }
    for (v6, key, family) in [
        (false, "net.ipv4.ip_forward", nftables::IPV4),
        (true, "net.ipv6.conf.all.forwarding", nftables::IPV6),
    ] {
        if network.pool(v6).is_none() || fs::read_to_string(path(key)).is_ok_and(|text| text.trim() != "0") {
            continue;
        }
        if v6 {
            keep_router_advertisements()?;
        }
        set_sysctl(key, "1")?;
        switched.push(family);
    }
    Ok(switched)
}

/// A host that forwards stops listening to router advertisements (1), and loses its own default route,
/// unless told to keep on (2).
fn keep_router_advertisements() -> Result<(), Error> {
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(()) };
    for interface in interfaces.flatten() {
        let file = interface.path().join("accept_ra");
        if fs::read_to_string(&file).is_ok_and(|text| text.trim() == "1") {
            fs::write(&file, "2").map_err(|source| Error::file("write", &file, source))?;
        }
    }
    Ok(())
}

/// What is there already is well.
fn there(outcome: Result<(), crate::netlink::NetlinkError>) -> Result<(), crate::netlink::NetlinkError> {
    match outcome {
        Err(refused) if refused.is(Errno::EXIST) => Ok(()),
        other => other,
    }
}
