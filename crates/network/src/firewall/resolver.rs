//! PURE: the redirection inside a container's namespace that brings questions to the name service.

use std::net::Ipv4Addr;

use crate::netlink::message::Batch;
use crate::netlink::nftables::{Base, Compare, Hook, IPV4, Meta, Transaction};

const TABLE: &str = "catamaran";
const CHAIN: &str = "names";
const DNS: u16 = 53;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// `ip daddr SERVER udp dport 53 dnat ip to SERVER:UDP_PORT`, and the same for TCP.
#[must_use]
pub fn redirection(server: Ipv4Addr, udp_port: u16, tcp_port: u16) -> Batch {
    let mut to = Transaction::begin(TABLE);
    to.add_table();
    to.add_chain(CHAIN, Some(Hook { kind: "nat", number: 3, priority: -100 }));
    for (transport, port) in [(UDP, udp_port), (TCP, tcp_port)] {
        to.add_rule(CHAIN, |rule| {
            let address = server.octets();
            rule.meta(Meta::Family, 1).compare(1, Compare::Equal, &[IPV4]);
            rule.payload(Base::Network, 16, 4, 1).compare(1, Compare::Equal, &address);
            rule.meta(Meta::Transport, 1).compare(1, Compare::Equal, &[transport]);
            rule.payload(Base::Transport, 2, 2, 1).compare(1, Compare::Equal, &DNS.to_be_bytes());
            rule.load(1, &address).load(2, &port.to_be_bytes()).redirect(IPV4, 2);
        });
    }
    to.end()
}
