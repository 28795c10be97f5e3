//! The guest's interfaces: found by their hardware address, named, addressed and routed as the host says.

use std::fs;

use cata_guest::protocol::{Boot, Interface};
use cata_network::netlink::message::Batch;
use cata_network::netlink::{Channel, route};
use cata_sys::netlink::ROUTE;

use crate::boot::{BootError, failed};

const LOOPBACK: u32 = 1;

/// Everything up, addresses, routes.
pub(crate) fn configure(boot: &Boot) -> Result<(), BootError> {
    let own = Channel::open(ROUTE).map_err(|error| refused("a netlink socket", &error))?;
    if !boot.network.is_empty() {
        defaults(boot.ipv6);
    }
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK);
    for interface in &boot.network {
        let index = find(interface)?;
        route::rename(&mut batch, index, &interface.name);
        if let Some(mtu) = interface.mtu {
            route::set_mtu(&mut batch, index, mtu);
        }
        for address in &interface.addresses {
            route::add_address(&mut batch, index, *address);
        }
        route::set_up(&mut batch, index);
        for gateway in &interface.gateways {
            route::add_default_route(&mut batch, index, *gateway);
        }
    }
    own.apply(&batch).map_err(|error| refused("the interfaces", &error))
}

fn refused(what: &str, error: &cata_network::netlink::NetlinkError) -> BootError {
    BootError::System(format!("configure {what}"), std::io::Error::other(error.to_string()))
}

/// Addresses are usable at once, and nothing is learned from neighbours; as in a container's namespace.
fn defaults(ipv6: bool) {
    let settings: &[(&str, &str)] =
        if ipv6 { &[("accept_dad", "0"), ("accept_ra", "0")] } else { &[("disable_ipv6", "1")] };
    for (name, value) in settings {
        for whose in ["default", "all"] {
            // A kernel without IPv6 has nothing to switch off.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{whose}/{name}"), value);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") {
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("eth"))
        {
            for (name, value) in settings {
                let _ = fs::write(entry.path().join(name), value);
            }
        }
    }
}

fn find(interface: &Interface) -> Result<u32, BootError> {
    let [a, b, c, d, e, f] = interface.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let entries = fs::read_dir("/sys/class/net").map_err(failed("list interfaces"))?;
    entries
        .flatten()
        .find(|entry| {
            fs::read_to_string(entry.path().join("address")).is_ok_and(|address| address.trim_end() == mac)
        })
        .and_then(|entry| fs::read_to_string(entry.path().join("ifindex")).ok()?.trim_end().parse().ok())
        .ok_or_else(|| {
            let missing = std::io::Error::other("no such interface: is the driver virtio_net loaded?");
            BootError::System(format!("find the interface {mac}"), missing)
        })
}
