//! PURE: links, addresses and routes as messages, and the parts of their answers that are used.
//!
//! No message asks for an answer that all is well: a refusal always comes, before the sending call is over.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;

use super::decode;
use super::message::{Batch, Body, CREATE, DUMP, EXCL};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const REPLACE: u16 = 0x100;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;

const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NTF_MASTER: u8 = 0x04;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A pair of interfaces: one end on the host's bridge, the other born in a container's namespace.
#[derive(Debug)]
pub struct Veth<'v> {
    /// The host's end.
    pub name: &'v str,
    /// The bridge it belongs to.
    pub bridge: u32,
    /// The container's end.
    pub peer: &'v str,
    /// The address of the container's end.
    pub peer_mac: [u8; 6],
    /// Where the container's end is born.
    pub namespace: BorrowedFd<'v>,
    /// Largest packet, if not the default.
    pub mtu: Option<u32>,
}

/// Adds: make a bridge, up.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: Option<u32>) {
    batch.message(RTM_NEWLINK, CREATE | EXCL, |body| {
        link(body, AF_UNSPEC, 0, true);
        body.text(IFLA_IFNAME, name);
        body.attribute(IFLA_ADDRESS, &mac);
        if let Some(mtu) = mtu {
            body.u32(IFLA_MTU, mtu);
        }
        body.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    });
}

/// Adds: make a pair, the host's end up.
pub fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    batch.message(RTM_NEWLINK, CREATE | EXCL, |body| {
        link(body, AF_UNSPEC, 0, true);
        body.text(IFLA_IFNAME, veth.name);
        body.u32(IFLA_MASTER, veth.bridge);
        if let Some(mtu) = veth.mtu {
            body.u32(IFLA_MTU, mtu);
        }
        body.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    // The kernel cannot set it up before the pair is tied together.
                    link(peer, AF_UNSPEC, 0, false);
                    peer.text(IFLA_IFNAME, veth.peer);
                    peer.attribute(IFLA_ADDRESS, &veth.peer_mac);
                    peer.attribute(IFLA_NET_NS_FD, &veth.namespace.as_raw_fd().to_ne_bytes());
                    if let Some(mtu) = veth.mtu {
                        peer.u32(IFLA_MTU, mtu);
                    }
                });
            });
        });
    });
}

/// Adds: let a bridge send a packet back where it came from. Needed where bridged packets pass the firewall
/// (`br_netfilter`): a container then reaches its own published port through its bridge port alone.
pub fn set_hairpin(batch: &mut Batch, port: u32) {
    batch.message(RTM_SETLINK, 0, |body| {
        link(body, AF_BRIDGE, port, false);
        body.nest(IFLA_PROTINFO, |info| info.attribute(IFLA_BRPORT_MODE, &[1]));
    });
}

/// Adds: tell the bridge behind which of its ports a hardware address is.
///
/// An address of a container that just ended may have been learned behind another port.
pub fn set_forwarding(batch: &mut Batch, port: u32, mac: [u8; 6]) {
    batch.message(RTM_NEWNEIGH, CREATE | REPLACE, |body| {
        let mut header = [0_u8; 12];
        header[0] = AF_BRIDGE;
        header[4..8].copy_from_slice(&port.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_NOARP.to_ne_bytes());
        header[10] = NTF_MASTER;
        body.raw(&header);
        body.attribute(NDA_LLADDR, &mac);
    });
}

/// Adds: set an interface up.
pub fn set_up(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, 0, |body| link(body, AF_UNSPEC, index, true));
}

/// Adds: name an interface that is down.
pub fn rename(batch: &mut Batch, index: u32, name: &str) {
    batch.message(RTM_NEWLINK, 0, |body| {
        link(body, AF_UNSPEC, index, false);
        body.text(IFLA_IFNAME, name);
    });
}

/// Adds: an interface's largest packet.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.message(RTM_NEWLINK, 0, |body| {
        link(body, AF_UNSPEC, index, false);
        body.u32(IFLA_MTU, mtu);
    });
}

/// Adds: make an interface a port of a bridge, and set it up.
pub fn set_master(batch: &mut Batch, index: u32, bridge: u32, mtu: Option<u32>) {
    batch.message(RTM_NEWLINK, 0, |body| {
        link(body, AF_UNSPEC, index, true);
        body.u32(IFLA_MASTER, bridge);
        if let Some(mtu) = mtu {
            body.u32(IFLA_MTU, mtu);
        }
    });
}

/// Adds: delete an interface.
pub fn delete_link(batch: &mut Batch, index: u32) {
    batch.message(RTM_DELLINK, 0, |body| link(body, AF_UNSPEC, index, false));
}

/// Adds: give an interface an address that can be used at once (no duplicate address detection).
pub fn add_address(batch: &mut Batch, index: u32, address: IpNet) {
    batch.message(RTM_NEWADDR, CREATE | EXCL, |body| {
        let [a, b, c, d] = index.to_ne_bytes();
        body.raw(&[family(address.addr()), address.prefix_len(), 0, 0, a, b, c, d]);
        body.address(IFA_LOCAL, address.addr());
        body.address(IFA_ADDRESS, address.addr());
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => body.address(IFA_BROADCAST, net.broadcast().into()),
            IpNet::V4(_) => {}
            IpNet::V6(_) => body.u32(IFA_FLAGS, IFA_F_NODAD),
        }
    });
}

/// Adds: a default route.
pub fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    default_route(batch, CREATE | EXCL, index, gateway);
}

fn default_route(batch: &mut Batch, flags: u16, index: u32, gateway: IpAddr) {
    batch.message(RTM_NEWROUTE, flags, |body| {
        body.raw(&[family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0]);
        body.u32(RTA_OIF, index);
        body.address(RTA_GATEWAY, gateway);
    });
}

/// Adds: a default route in the place of the one there is, if there is one.
pub fn set_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    default_route(batch, CREATE | REPLACE, index, gateway);
}

/// Adds: list every address.
pub fn list_addresses(batch: &mut Batch) {
    batch.message(RTM_GETADDR, DUMP, |body| body.raw(&[0; 8]));
}

/// Adds: list every route.
pub fn list_routes(batch: &mut Batch) {
    batch.message(RTM_GETROUTE, DUMP, |body| body.raw(&[0; 12]));
}

/// The interface and address in an answer to [`list_addresses`].
#[must_use]
pub fn address_of(kind: u16, body: &[u8]) -> Option<(u32, IpNet)> {
    if kind != RTM_NEWADDR {
        return None;
    }
    let prefix = *body.get(1)?;
    let index = decode::u32_at(body, 4).ok()?;
    let mut found = None;
    for (kind, value) in decode::attributes(body.get(8..)?) {
        // IFA_LOCAL is the interface's own where the two differ (point-to-point links).
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none()) {
            found = ip(value);
        }
    }
    Some((index, IpNet::new(found?, prefix).ok()?))
}

/// The destination in an answer to [`list_routes`], if it is one of the main table and not the default.
#[must_use]
pub fn destination_of(kind: u16, body: &[u8]) -> Option<IpNet> {
    if kind != RTM_NEWROUTE {
        return None;
    }
    let prefix = *body.get(1)?;
    let mut table = u32::from(*body.get(4)?);
    let mut destination = None;
    for (kind, value) in decode::attributes(body.get(12..)?) {
        match kind {
            RTA_TABLE => table = decode::u32_at(value, 0).ok()?,
            RTA_DST => destination = ip(value),
            _ => {}
        }
    }
    if table != u32::from(RT_TABLE_MAIN) || prefix == 0 {
        return None;
    }
    IpNet::new(destination?, prefix).ok()
}

fn link(body: &mut Body<'_>, family: u8, index: u32, up: bool) {
    let flags = if up { IFF_UP } else { 0 };
    let mut header = [0_u8; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    body.raw(&header);
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(value).ok().map(Into::into)
}
