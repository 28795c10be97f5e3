//! PURE: the chains and sets that never change.
//!
//! In `nft`'s words (a test compares what the kernel lists with a snapshot):
//!
//! ```text
//! chain catamaran-admin { }                                # the administrator's
//! chain publish {                                          # from prerouting and output, at dstnat
//!     dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
//!     fib daddr type local dnat ip to meta l4proto . th dport map @ports4
//!     … the same for ip6, ::1 excepted: the kernel cannot redirect a connection to ::1 …
//! }
//! chain raw {                                              # prerouting, raw: route_localnet must not let
//!     iifname @bridges ip daddr 127.0.0.0/8 drop           # a container reach the host's loopback
//!     iifname @bridges ip saddr 127.0.0.0/8 drop           # (CVE-2020-8558)
//! }
//! chain postrouting {                                      # srcnat
//!     oifname @bridges ip saddr 127.0.0.0/8 masquerade     # the host through 127.0.0.1
//!     oifname @bridges ct status dnat ip saddr @subnets4 masquerade      # a container through the host
//!     oifname != @bridges ip saddr @subnets4 masquerade    # a container to the world
//! }
//! chain from_container {                                   # forward, in from a bridge
//!     ct state established,related accept
//!     iifname . oifname @same_bridge accept
//!     iifname @internal drop
//!     oifname @internal drop
//!     ct status dnat accept
//!     oifname @bridges drop                                # networks do not see each other
//!     accept
//! }
//! chain to_container {                                     # forward, in from elsewhere
//!     ct state established,related accept
//!     oifname @internal drop
//!     ct status dnat accept                                # published ports only
//!     drop
//! }
//! chain forward {
//!     jump catamaran-admin
//!     iifname @bridges goto from_container
//!     oifname @bridges goto to_container
//!     meta nfproto @guarded drop                           # forwarding was off before we needed it
//! }
//! ```

use crate::netlink::nftables::{
    Base, Compare, Hook, IPV4, IPV6, Meta, Rule, Set, Tracked, Transaction, Type, Verdict,
};

/// The table's name, of the `inet` family.
pub const TABLE: &str = "catamaran";
/// Raised with every change below: rules of another version are replaced in one transaction.
pub const VERSION: u32 = 1;

/// Holds [`VERSION`].
pub const GENERATION: &str = "generation";
/// Interfaces of bridges.
pub const BRIDGES: &str = "bridges";
/// Those without a way out.
pub const INTERNAL: &str = "internal";
/// Every bridge beside itself: the firewall cannot compare two interfaces.
pub const SAME_BRIDGE: &str = "same_bridge";
/// Subnets that are masqueraded.
pub const SUBNETS4: &str = "subnets4";
/// Subnets that are masqueraded.
pub const SUBNETS6: &str = "subnets6";
/// Families whose forwarding we switched on.
pub const GUARDED: &str = "guarded";
/// Ports published on every address.
pub const PORTS4: &str = "ports4";
/// Ports published on one address.
pub const PORTS4_AT: &str = "ports4_at";
/// Ports published on every address.
pub const PORTS6: &str = "ports6";
/// Ports published on one address.
pub const PORTS6_AT: &str = "ports6_at";

const SETS: [Set; 11] = {
    use Type::{Family, Interface, Ipv4, Ipv6, Mark, Port, Transport};
    const fn set(name: &'static str, key: &'static [Type], data: &'static [Type], interval: bool) -> Set {
        Set { name, key, data, interval }
    }
    [
        set(GENERATION, &[Mark], &[], false),
        set(BRIDGES, &[Interface], &[], false),
        set(INTERNAL, &[Interface], &[], false),
        set(SAME_BRIDGE, &[Interface, Interface], &[], false),
        set(SUBNETS4, &[Ipv4], &[], true),
        set(SUBNETS6, &[Ipv6], &[], true),
        set(GUARDED, &[Family], &[], false),
        set(PORTS4, &[Transport, Port], &[Ipv4, Port], false),
        set(PORTS4_AT, &[Ipv4, Transport, Port], &[Ipv4, Port], false),
        set(PORTS6, &[Transport, Port], &[Ipv6, Port], false),
        set(PORTS6_AT, &[Ipv6, Transport, Port], &[Ipv6, Port], false),
    ]
};

const ADMIN: &str = "catamaran-admin";
const PUBLISH: &str = "publish";
const FROM: &str = "from_container";
const TO: &str = "to_container";

/// Our chains; `catamaran-admin` is not among them, because they are flushed.
const CHAINS: [(&str, Option<Hook>); 8] = {
    const fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
        Some(Hook { kind, number, priority })
    }
    [
        (PUBLISH, None),
        (FROM, None),
        (TO, None),
        ("raw", hook("filter", 0, -300)),
        ("prerouting", hook("nat", 0, -100)),
        ("forward", hook("filter", 2, 0)),
        ("output", hook("nat", 3, -100)),
        ("postrouting", hook("nat", 4, 100)),
    ]
};

const ESTABLISHED_OR_RELATED: u32 = 0b110;
const REDIRECTED: u32 = 0x20;
/// Four-byte registers, where the parts of a concatenation go.
const WORD: u32 = 8;

/// Adds everything: what is there is renewed, elements stay.
pub fn write(to: &mut Transaction) {
    to.add_table();
    for set in &SETS {
        to.add_set(set);
    }
    to.add_chain(ADMIN, None);
    for (name, hook) in CHAINS {
        to.add_chain(name, hook);
        to.flush_chain(name);
    }
    to.flush_set(GENERATION);
    to.add_element(GENERATION, &VERSION.to_ne_bytes(), None);
    translation(to);
    forward(to);
}

fn translation(to: &mut Transaction) {
    to.add_rule(PUBLISH, |rule| {
        family(rule, IPV4).payload(Base::Network, 16, 4, WORD);
        port_key(rule, WORD + 1).map(PORTS4_AT).redirect(IPV4, WORD + 1);
    });
    to.add_rule(PUBLISH, |rule| {
        family(rule, IPV4).to_this_host();
        port_key(rule, WORD).map(PORTS4).redirect(IPV4, WORD + 1);
    });
    to.add_rule(PUBLISH, |rule| {
        family(rule, IPV6).payload(Base::Network, 24, 16, WORD);
        port_key(rule, WORD + 4).map(PORTS6_AT).redirect(IPV6, WORD + 4);
    });
    to.add_rule(PUBLISH, |rule| {
        let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
        family(rule, IPV6).payload(Base::Network, 24, 16, 1).compare(1, Compare::Differs, &loopback);
        rule.to_this_host();
        port_key(rule, WORD).map(PORTS6).redirect(IPV6, WORD + 4);
    });
    for chain in ["prerouting", "output"] {
        to.add_rule(chain, |rule| {
            rule.verdict(Verdict::Jump(PUBLISH));
        });
    }
    for offset in [16, 12] {
        to.add_rule("raw", |rule| {
            rule.meta(Meta::InInterface, 1).lookup(BRIDGES, false);
            family(rule, IPV4).payload(Base::Network, offset, 1, 1).compare(1, Compare::Equal, &[127]);
            rule.verdict(Verdict::Drop);
        });
    }
    to.add_rule("postrouting", |rule| {
        rule.meta(Meta::OutInterface, 1).lookup(BRIDGES, false);
        family(rule, IPV4).payload(Base::Network, 12, 1, 1).compare(1, Compare::Equal, &[127]);
        rule.masquerade();
    });
    let sources = [(IPV4, 12, 4, SUBNETS4), (IPV6, 8, 16, SUBNETS6)];
    for (number, offset, length, subnets) in sources {
        to.add_rule("postrouting", |rule| {
            rule.meta(Meta::OutInterface, 1).lookup(BRIDGES, false).tracked(Tracked::Status, REDIRECTED);
            family(rule, number)
                .payload(Base::Network, offset, length, 1)
                .lookup(subnets, false)
                .masquerade();
        });
        to.add_rule("postrouting", |rule| {
            rule.meta(Meta::OutInterface, 1).lookup(BRIDGES, true);
            family(rule, number)
                .payload(Base::Network, offset, length, 1)
                .lookup(subnets, false)
                .masquerade();
        });
    }
}

fn forward(to: &mut Transaction) {
    use Meta::{InInterface, OutInterface};
    use Verdict::{Accept, Drop, Goto, Jump};

    for chain in [FROM, TO] {
        to.add_rule(chain, |rule| {
            rule.tracked(Tracked::State, ESTABLISHED_OR_RELATED).verdict(Accept);
        });
    }
    to.add_rule(FROM, |rule| {
        rule.meta(InInterface, 1).meta(OutInterface, 2).lookup(SAME_BRIDGE, false).verdict(Accept);
    });
    let mut on = |chain, interface, set, verdict| {
        to.add_rule(chain, |rule| {
            rule.meta(interface, 1).lookup(set, false).verdict(verdict);
        });
    };
    on(FROM, InInterface, INTERNAL, Drop);
    on(FROM, OutInterface, INTERNAL, Drop);
    on(TO, OutInterface, INTERNAL, Drop);
    for chain in [FROM, TO] {
        to.add_rule(chain, |rule| {
            rule.tracked(Tracked::Status, REDIRECTED).verdict(Accept);
        });
    }
    to.add_rule(FROM, |rule| {
        rule.meta(OutInterface, 1).lookup(BRIDGES, false).verdict(Drop);
    });
    for (chain, verdict) in [(FROM, Accept), (TO, Drop), ("forward", Jump(ADMIN))] {
        to.add_rule(chain, |rule| {
            rule.verdict(verdict);
        });
    }
    for (interface, chain) in [(InInterface, FROM), (OutInterface, TO)] {
        to.add_rule("forward", |rule| {
            rule.meta(interface, 1).lookup(BRIDGES, false).verdict(Goto(chain));
        });
    }
    to.add_rule("forward", |rule| {
        rule.meta(Meta::Family, 1).lookup(GUARDED, false).verdict(Drop);
    });
}

fn family<'r, 'l, 'b>(rule: &'r mut Rule<'l, 'b>, number: u8) -> &'r mut Rule<'l, 'b> {
    rule.meta(Meta::Family, 1).compare(1, Compare::Equal, &[number])
}

/// `meta l4proto . th dport`.
fn port_key<'r, 'l, 'b>(rule: &'r mut Rule<'l, 'b>, register: u32) -> &'r mut Rule<'l, 'b> {
    rule.meta(Meta::Transport, register).payload(Base::Transport, 2, 2, register + 1)
}
