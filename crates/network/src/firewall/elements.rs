//! PURE: the elements that a network and a published port are.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ruleset::{
    BRIDGES, INTERNAL, PORTS4, PORTS4_AT, PORTS6, PORTS6_AT, SAME_BRIDGE, SUBNETS4, SUBNETS6, TABLE,
};
use crate::netlink::message::Batch;
use crate::netlink::nftables::{Deletion, Transaction};
use crate::record::Network;
use crate::request::{PublishedPort, Transport};

/// Adds what the rules have to know of a network.
pub fn add_network(to: &mut Transaction, network: &Network) {
    for element in of_network(network) {
        match &element.end {
            Some(end) => to.add_range(element.set, &element.key, end),
            None => to.add_element(element.set, &element.key, None),
        }
    }
}

/// The batches that take it away again, each tolerating `ENOENT`.
#[must_use]
pub fn remove_batches(how: Deletion, network: &Network) -> Vec<Batch> {
    split(how, &of_network(network), |to, element| match &element.end {
        Some(end) => to.delete_range(how, element.set, &element.key, end),
        None => to.delete_element(how, element.set, &element.key),
    })
}

/// Adds the redirection of a published port.
pub fn publish(to: &mut Transaction, port: &PublishedPort, target: IpAddr) {
    let (map, key) = port_key(port);
    let mut data = octets(target);
    data.extend_from_slice(&padded_port(port.container_port));
    to.add_element(map, &key, Some(&data));
}

/// Takes it away.
pub fn unpublish(to: &mut Transaction, how: Deletion, port: &PublishedPort) {
    let (map, key) = port_key(port);
    to.delete_element(how, map, &key);
}

/// The batches that take published ports away, each tolerating `ENOENT`.
#[must_use]
pub fn unpublish_batches(how: Deletion, ports: &[PublishedPort]) -> Vec<Batch> {
    split(how, ports, |to, port| unpublish(to, how, port))
}

/// An interface name as a key.
#[must_use]
pub fn interface(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    key
}

struct Element {
    set: &'static str,
    key: Vec<u8>,
    end: Option<Vec<u8>>,
}

fn of_network(network: &Network) -> Vec<Element> {
    let name = interface(&network.interface).to_vec();
    let single = |set, key| Element { set, key, end: None };
    let mut elements = vec![single(BRIDGES, name.clone()), single(SAME_BRIDGE, [&name[..], &name].concat())];
    if network.internal {
        elements.push(single(INTERNAL, name));
    } else if network.masquerade {
        elements.extend(network.pools.iter().map(|pool| range(pool.subnet)));
    }
    elements
}

fn range(subnet: IpNet) -> Element {
    let end = match subnet {
        IpNet::V4(net) => u32::from(net.broadcast()).wrapping_add(1).to_be_bytes().to_vec(),
        IpNet::V6(net) => u128::from(net.broadcast()).wrapping_add(1).to_be_bytes().to_vec(),
    };
    let set = if subnet.addr().is_ipv4() { SUBNETS4 } else { SUBNETS6 };
    Element { set, key: octets(subnet.network()), end: Some(end) }
}

/// Strict deletions fail the whole batch when one is missing: then each goes alone.
fn split<T>(how: Deletion, items: &[T], mut add: impl FnMut(&mut Transaction, &T)) -> Vec<Batch> {
    let size = match how {
        Deletion::Strict => 1,
        Deletion::Lenient => items.len().max(1),
    };
    let batch = |items: &[T]| {
        let mut transaction = Transaction::begin(TABLE);
        for item in items {
            add(&mut transaction, item);
        }
        transaction.end()
    };
    items.chunks(size).map(batch).collect()
}

fn port_key(port: &PublishedPort) -> (&'static str, Vec<u8>) {
    let transport = match port.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    let mut key = Vec::with_capacity(24);
    let map = match (port.host_ip.is_ipv4(), port.host_ip.is_unspecified()) {
        (true, true) => PORTS4,
        (true, false) => PORTS4_AT,
        (false, true) => PORTS6,
        (false, false) => PORTS6_AT,
    };
    if !port.host_ip.is_unspecified() {
        key.extend_from_slice(&octets(port.host_ip));
    }
    key.extend_from_slice(&[transport, 0, 0, 0]);
    key.extend_from_slice(&padded_port(port.host_port));
    (map, key)
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
