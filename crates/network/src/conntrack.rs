//! Flows of published UDP ports: the kernel remembers where a flow went for as long as its client goes on
//! sending, also when the container is gone and another has its port or its address.
//!
//! Found by a dump that the kernel filters (Linux 5.8), and deleted one by one. TCP needs none of this: a
//! successor answers a stranger's segment with a reset.

use std::net::IpAddr;

use cata_sys::netlink::NETFILTER;

use crate::Error;
use crate::netlink::Channel;
use crate::netlink::message::{Batch, Body, DUMP};
use crate::port::Target;
use crate::request::{PublishedPort, Teardown, Transport};

const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const UDP: u8 = 17;
const INET: u8 = 2;
const INET6: u8 = 10;

/// The parts of a tuple that a filter looks at.
const SOURCE: u32 = 1 << 0;
const DESTINATION: u32 = 1 << 1;
const PROTOCOL: u32 = 1 << 3;
const SOURCE_PORT: u32 = 1 << 4;
const DESTINATION_PORT: u32 = 1 << 5;

/// Deletes what the kernel remembers of these UDP host ports from before they were published: flows that went
/// to the host itself, or to a container that is gone.
///
/// # Errors
/// [`Error::Netlink`].
pub fn forget_before(ports: &[PublishedPort]) -> Result<(), Error> {
    delete(ports.iter().filter(|port| port.transport == Transport::Udp).map(to_host_port))
}

/// Deletes the flows to a dead container's published UDP ports.
///
/// # Errors
/// [`Error::Netlink`].
pub fn forget(ports: &[PublishedPort], target: &Target) -> Result<(), Error> {
    delete(answered(ports, target))
}

fn delete(questions: impl Iterator<Item = Batch>) -> Result<(), Error> {
    let failed = || Error::netlink("forget flows of UDP ports");
    let mut open = None;
    for question in questions {
        let channel = match open.take() {
            Some(channel) => channel,
            None => Channel::open(NETFILTER).map_err(failed())?,
        };
        let mut deletions = Batch::new();
        let found = channel.query(&question, |kind, body| {
            if kind >> 8 == GET >> 8 {
                deletions.message(DELETE, 0, |to| to.raw(body));
            }
        });
        match found.and_then(|()| channel.apply(&deletions)) {
            // Ended by itself meanwhile.
            Err(refused) if refused.is(rustix::io::Errno::NOENT) => {}
            outcome => outcome.map_err(failed())?,
        }
        open = Some(channel);
    }
    Ok(())
}

/// The steps that delete the flows to a container's published UDP ports, for whoever ends it.
pub fn forget_later(ports: &[PublishedPort], target: &Target) -> Vec<Teardown> {
    answered(ports, target)
        .map(|dump| Teardown::NetlinkEach { protocol: NETFILTER, dump: dump.into_bytes(), kind: DELETE })
        .collect()
}

fn answered(ports: &[PublishedPort], target: &Target) -> impl Iterator<Item = Batch> {
    let udp = ports.iter().filter(|port| port.transport == Transport::Udp);
    udp.filter_map(|port| Some(from_container(target.address(port)?, port.container_port)))
}

/// PURE: asks for the flows whose first packet went to a host port.
fn to_host_port(port: &PublishedPort) -> Batch {
    let specific = (!port.host_ip.is_unspecified()).then_some(port.host_ip);
    let flags = if specific.is_some() { DESTINATION } else { 0 } | PROTOCOL | DESTINATION_PORT;
    dump(port.host_ip, TUPLE_ORIGINAL, flags, |tuple| {
        if let Some(address) = specific {
            tuple.nest(1, |ip| ip.address(if address.is_ipv4() { 2 } else { 4 }, address));
        }
        tuple.nest(2, |protocol| {
            protocol.attribute(1, &[UDP]);
            protocol.attribute(3, &port.host_port.to_be_bytes());
        });
    })
}

/// PURE: asks for the flows that a container's port answers.
fn from_container(address: IpAddr, port: u16) -> Batch {
    dump(address, TUPLE_REPLY, SOURCE | PROTOCOL | SOURCE_PORT, |tuple| {
        tuple.nest(1, |ip| ip.address(if address.is_ipv4() { 1 } else { 3 }, address));
        tuple.nest(2, |protocol| {
            protocol.attribute(1, &[UDP]);
            protocol.attribute(2, &port.to_be_bytes());
        });
    })
}

fn dump(family: IpAddr, tuple: u16, flags: u32, fill: impl FnOnce(&mut Body<'_>)) -> Batch {
    let family = if family.is_ipv4() { INET } else { INET6 };
    let mut batch = Batch::new();
    batch.message(GET, DUMP, |body| {
        body.raw(&[family, 0, 0, 0]);
        body.nest(tuple, fill);
        body.nest(FILTER, |filter| filter.u32(tuple, flags));
    });
    batch
}
