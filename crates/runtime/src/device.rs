//! Network devices of the host that a container gets: moved, with their addresses, before its program exists.
//! When the container's network namespace ends, the kernel gives hardware back to the host.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use cata_sys::netlink::{ROUTE, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use crate::error::{SpawnError, Stage, at};
use crate::namespace::open_path;
use crate::plan::NetDevice;

const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE_NEW: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Not learned, and not going to end by itself.
const PERMANENT: u32 = 0x80;
const UP: u32 = 1;
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// Moves them into a network namespace.
pub(crate) fn give(devices: &[NetDevice], namespace: BorrowedFd<'_>) -> Result<(), SpawnError> {
    let failed = |what: &NetDevice| {
        let subject = what.host.clone();
        move |errno| at(Stage::NetDevice, subject)(errno)
    };
    let Some(first) = devices.first() else { return Ok(()) };
    let here = Link::open().map_err(failed(first))?;
    let there = inside(namespace, Link::open).map_err(failed(first))?;
    for device in devices {
        move_one(device, namespace, &here, &there).map_err(failed(device))?;
    }
    Ok(())
}

fn move_one(device: &NetDevice, namespace: BorrowedFd<'_>, here: &Link, there: &Link) -> Result<(), Errno> {
    let index = here.index(&device.host)?;
    // The kernel would move it first, and then find that it cannot have this name.
    if there.index(&device.name).is_ok() {
        return Err(Errno::EXIST);
    }
    // The kernel forgets them when the device moves.
    let addresses = here.addresses(index)?;
    let descriptor = namespace.as_raw_fd().unsigned_abs().to_ne_bytes();
    let name = [device.name.as_bytes(), b"\0"].concat();
    let body = [link(index, 0), attribute(IFLA_NET_NS_FD, &descriptor), attribute(IFLA_IFNAME, &name)];
    here.ask(RTM_SETLINK, ACK, &body.concat())?;
    let index = there.index(&device.name)?;
    for address in &addresses {
        there.ask(RTM_NEWADDR, ACK | CREATE_NEW, &address.on(index))?;
    }
    there.ask(RTM_SETLINK, ACK, &link(index, UP))
}

/// What one asks of links, in one network namespace.
struct Link {
    netlink: Socket,
    /// Names are looked up in the namespace of a socket.
    names: std::os::fd::OwnedFd,
}

/// An address as the kernel told it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

impl Address {
    fn on(&self, index: u32) -> Vec<u8> {
        let mut body = vec![self.family, self.prefix, 0, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&self.attributes);
        body
    }
}

impl Link {
    fn open() -> Result<Self, Errno> {
        let netlink = Socket::open(ROUTE).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        Ok(Self { netlink, names: rustix::net::socket_with(AddressFamily::INET, kind, flags, None)? })
    }

    fn index(&self, name: &str) -> Result<u32, Errno> {
        rustix::net::netdevice::name_to_index(&self.names, name)
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.each(kind, flags, body, &mut |_, _| ())
    }

    /// Those that somebody gave to a device, and that mean something beyond it.
    fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut found = Vec::new();
        self.each(RTM_GETADDR, DUMP, &[0; ADDRESS_HEADER], &mut |kind, body| {
            if kind == RTM_NEWADDR {
                found.extend(address(body, index));
            }
        })?;
        Ok(found)
    }

    fn each(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        told: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<(), Errno> {
        let io = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::INVAL)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        self.netlink.send(&message).map_err(io)?;
        let mut buffer = vec![0; 64 * 1024];
        while let Some(datagram) = self.netlink.receive(&mut buffer).map_err(io)? {
            for (kind, body) in messages(datagram) {
                if kind == NLMSG_ERROR {
                    let code = number(body, 0).map_or(0, u32::cast_signed);
                    if code != 0 {
                        return Err(Errno::from_raw_os_error(code.saturating_neg()));
                    }
                } else {
                    told(kind, body);
                }
            }
        }
        Ok(())
    }
}

/// PURE: kinds and bodies of the messages in a datagram; ends at the first that is cut off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// PURE: an address of this device that goes along.
fn address(body: &[u8], index: u32) -> Option<Address> {
    let (&family, &prefix, &flags, &scope) = (body.first()?, body.get(1)?, body.get(2)?, body.get(3)?);
    if number(body, 4)? != index || scope != 0 {
        return None;
    }
    let mut flags = u32::from(flags);
    let mut kept = Vec::new();
    let mut rest = body.get(ADDRESS_HEADER..)?;
    while let Some(length) = rest.get(..2) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        match kind {
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => kept.extend(attribute(kind, value)),
            IFA_FLAGS => flags = number(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (flags & PERMANENT != 0).then_some(Address { family, prefix, attributes: kept })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sockets belong to the network namespace they were opened in: goes there, and comes back.
fn inside<T>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let network = Some(LinkNameSpaceType::Network);
    let own = open_path("/proc/self/ns/net")?;
    rustix::thread::move_into_link_name_space(namespace, network)?;
    let made = act();
    rustix::thread::move_into_link_name_space(own.as_fd(), network)?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(index: u32, scope: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, 24, 0, scope];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend(attribute(IFA_ADDRESS, &[10, 0, 0, 1]));
        body.extend(attribute(3, b"eth0\0"));
        body.extend(attribute(IFA_FLAGS, &flags.to_ne_bytes()));
        body
    }

    #[test]
    fn only_lasting_addresses_of_the_device_go_along() {
        let kept = address(&told(7, 0, PERMANENT), 7).unwrap();
        assert_eq!((kept.family, kept.prefix), (2, 24));
        assert_eq!(kept.attributes, attribute(IFA_ADDRESS, &[10, 0, 0, 1]));
        for other in [told(8, 0, PERMANENT), told(7, 253, PERMANENT), told(7, 0, 0)] {
            assert_eq!(address(&other, 7), None);
        }
        let whole = told(7, 0, PERMANENT);
        for end in 0..whole.len() {
            let _ = address(&whole[..end], 7);
        }
    }

    #[test]
    fn messages_end_where_they_are_cut_off() {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        let twice = [bytes.clone(), bytes].concat();
        assert_eq!(messages(&twice).count(), 2);
        for end in 0..twice.len() {
            assert!(messages(&twice[..end]).count() < 2);
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
