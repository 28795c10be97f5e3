//! PURE: nf_tables transactions: tables, chains, sets, elements, rules and the expressions in them.

use super::message::{ACK, APPEND, Batch, Body, CREATE};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u8 = 10;

const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const NEW_ELEMENT: u8 = 12;
const GET_ELEMENT: u8 = 13;
const DELETE_ELEMENT: u8 = 14;
/// Linux 6.3: a deletion that does not mind what is not there.
const DESTROY_ELEMENT: u8 = 30;

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const ELEMENT_INTERVAL_END: u32 = 1;

/// `NFPROTO_INET`: both families in one table.
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub const IPV6: u8 = 10;

/// Data types as the `nft` program numbers them; the kernel only keeps them for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Type {
    /// `nf_proto`.
    Family = 2,
    /// `ipv4_addr`.
    Ipv4 = 7,
    /// `ipv6_addr`.
    Ipv6 = 8,
    /// `inet_proto`.
    Transport = 12,
    /// `inet_service`.
    Port = 13,
    /// `mark`.
    Mark = 19,
    /// `ifname`.
    Interface = 41,
}

impl Type {
    /// Bytes of a value.
    #[must_use]
    pub fn length(self) -> u32 {
        match self {
            Self::Family | Self::Transport => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::Interface => 16,
        }
    }

    /// 1: the host's, 2: the network's, 0: none.
    fn byte_order(self) -> u32 {
        match self {
            Self::Interface | Self::Mark => 1,
            Self::Ipv4 | Self::Ipv6 | Self::Port => 2,
            Self::Family | Self::Transport => 0,
        }
    }
}

/// A set, or a map when it has `data`.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// Types of the parts of its key.
    pub key: &'static [Type],
    /// Types of the parts of what a key maps to; empty for a set.
    pub data: &'static [Type],
    /// Whether elements are ranges.
    pub interval: bool,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}

/// A batch that takes effect as a whole or not at all.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    table: &'static str,
    next_set: u32,
}

impl Transaction {
    /// Begins one about a table of the `inet` family.
    #[must_use]
    pub fn begin(table: &'static str) -> Self {
        let mut batch = Batch::new();
        batch.message(BATCH_BEGIN, 0, |body| body.raw(&[0, 0, 0, SUBSYSTEM]));
        Self { batch, table, next_set: 0 }
    }

    /// Ends it.
    #[must_use]
    pub fn end(mut self) -> Batch {
        self.batch.message(BATCH_END, 0, |body| body.raw(&[0, 0, 0, SUBSYSTEM]));
        self.batch
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self) {
        let table = self.table;
        self.message(NEW_TABLE, CREATE, |body| {
            body.text(1, table);
            body.be32(2, 0);
        });
    }

    /// Makes a chain if it is not there.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table;
        self.message(NEW_CHAIN, CREATE, |body| {
            body.text(1, table);
            body.text(3, name);
            if let Some(hook) = hook {
                body.text(7, hook.kind);
                body.be32(5, 1);
                body.nest(4, |nest| {
                    nest.be32(1, hook.number);
                    nest.be32(2, hook.priority.cast_unsigned());
                });
            }
        });
    }

    /// Removes every rule of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let table = self.table;
        self.message(DELETE_RULE, 0, |body| {
            body.text(1, table);
            body.text(2, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_, '_>)) {
        let table = self.table;
        self.message(NEW_RULE, CREATE | APPEND, |body| {
            body.text(1, table);
            body.text(2, chain);
            body.nest(4, |list| fill(&mut Rule { list }));
        });
    }

    /// Makes a set or map if it is not there.
    pub fn add_set(&mut self, set: &Set) {
        let table = self.table;
        self.next_set += 1;
        let id = self.next_set;
        let mut flags = 0;
        if set.interval {
            flags |= SET_INTERVAL;
        }
        if !set.data.is_empty() {
            flags |= SET_MAP;
        }
        self.message(NEW_SET, CREATE, |body| {
            body.text(1, table);
            body.text(2, set.name);
            body.be32(3, flags);
            body.be32(4, concatenated_type(set.key));
            body.be32(5, concatenated_length(set.key));
            if !set.data.is_empty() {
                body.be32(6, concatenated_type(set.data));
                body.be32(7, concatenated_length(set.data));
            }
            body.be32(10, id);
            body.attribute(13, &user_data(set));
        });
    }

    /// Adds an element to a set, or to a map when there is `data`. One that is there already is well; one
    /// that maps to something else is refused.
    pub fn add_element(&mut self, set: &str, key: &[u8], data: Option<&[u8]>) {
        self.elements(NEW_ELEMENT, CREATE, set, |list| element(list, key, data, 0));
    }

    /// Adds the range from `first` up to, but not including, `end`.
    pub fn add_range(&mut self, set: &str, first: &[u8], end: &[u8]) {
        self.elements(NEW_ELEMENT, CREATE, set, |list| range(list, first, end));
    }

    /// Removes an element; see [`Deletion`].
    pub fn delete_element(&mut self, how: Deletion, set: &str, key: &[u8]) {
        self.elements(how.message(), 0, set, |list| element(list, key, None, 0));
    }

    /// Removes a range; see [`Deletion`].
    pub fn delete_range(&mut self, how: Deletion, set: &str, first: &[u8], end: &[u8]) {
        self.elements(how.message(), 0, set, |list| range(list, first, end));
    }

    /// Removes every element of a set.
    pub fn flush_set(&mut self, set: &str) {
        let table = self.table;
        self.message(DELETE_ELEMENT, 0, |body| {
            body.text(1, table);
            body.text(2, set);
        });
    }

    fn elements(&mut self, kind: u8, flags: u16, set: &str, fill: impl FnOnce(&mut Body<'_>)) {
        let table = self.table;
        self.message(kind, flags, |body| {
            body.text(1, table);
            body.text(2, set);
            body.nest(3, fill);
        });
    }

    fn message(&mut self, kind: u8, flags: u16, fill: impl FnOnce(&mut Body<'_>)) {
        // Refusals are always answered; that all went well needs no answer.
        self.batch.message(message_type(kind), flags, |body| {
            body.raw(&[INET, 0, 0, 0]);
            fill(body);
        });
    }
}

/// How an element is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// A missing element fails the transaction.
    Strict,
    /// A missing element is well (Linux 6.3).
    Lenient,
}

impl Deletion {
    fn message(self) -> u8 {
        match self {
            Self::Strict => DELETE_ELEMENT,
            Self::Lenient => DESTROY_ELEMENT,
        }
    }
}

/// Adds: ask for an element of a set; refused with `ENOENT` when it, the set or the table is missing.
pub fn get_element(batch: &mut Batch, table: &str, set: &str, key: &[u8]) {
    batch.message(message_type(GET_ELEMENT), ACK, |body| {
        body.raw(&[INET, 0, 0, 0]);
        body.text(1, table);
        body.text(2, set);
        body.nest(3, |list| element(list, key, None, 0));
    });
}

/// The expressions of a rule, in order.
#[derive(Debug)]
pub struct Rule<'l, 'b> {
    list: &'l mut Body<'b>,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// Drop it.
    Drop,
    /// Let it pass this base chain.
    Accept,
    /// Go on in a chain, and come back.
    Jump(&'static str),
    /// Go on in a chain.
    Goto(&'static str),
}

/// What `meta` loads.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Meta {
    /// Where the packet came in.
    InInterface = 6,
    /// Where it goes out.
    OutInterface = 7,
    /// Its family.
    Family = 15,
    /// Its transport protocol.
    Transport = 16,
}

/// Where a payload offset counts from.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Base {
    /// The IP header.
    Network = 1,
    /// The TCP or UDP header.
    Transport = 2,
}

/// What `ct` loads.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Tracked {
    /// New, established, related …
    State = 0,
    /// What was done to the connection, as bits.
    Status = 2,
}

/// How a comparison comes out true.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Compare {
    /// The same.
    Equal = 0,
    /// Not the same.
    Differs = 1,
}

impl Rule<'_, '_> {
    /// Loads what is known of the packet.
    pub fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.expression("meta", |data| {
            data.be32(1, register);
            data.be32(2, key as u32);
        })
    }

    /// Loads bytes of the packet.
    pub fn payload(&mut self, base: Base, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |data| {
            data.be32(1, register);
            data.be32(2, base as u32);
            data.be32(3, offset);
            data.be32(4, length);
        })
    }

    /// Goes on if the register compares so with `value`.
    pub fn compare(&mut self, register: u32, how: Compare, value: &[u8]) -> &mut Self {
        self.expression("cmp", |data| {
            data.be32(1, register);
            data.be32(2, how as u32);
            data.nest(3, |nest| nest.attribute(1, value));
        })
    }

    /// Goes on if any bit of `mask` is set in what is known of the connection.
    pub fn tracked(&mut self, key: Tracked, mask: u32) -> &mut Self {
        self.expression("ct", |data| {
            data.be32(1, 1);
            data.be32(2, key as u32);
        });
        self.expression("bitwise", |data| {
            data.be32(1, 1);
            data.be32(2, 1);
            data.be32(3, 4);
            data.nest(4, |nest| nest.attribute(1, &mask.to_ne_bytes()));
            data.nest(5, |nest| nest.attribute(1, &[0; 4]));
        });
        self.compare(1, Compare::Differs, &[0; 4])
    }

    /// Goes on if the packet is addressed to this host.
    pub fn to_this_host(&mut self) -> &mut Self {
        const ADDRESS_TYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.expression("fib", |data| {
            data.be32(1, 1);
            data.be32(2, ADDRESS_TYPE);
            data.be32(3, DESTINATION);
        });
        self.compare(1, Compare::Equal, &LOCAL.to_ne_bytes())
    }

    /// Goes on if the key from register 1 on is in the set, or is not when `inverted`.
    pub fn lookup(&mut self, set: &str, inverted: bool) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, set);
            data.be32(2, 1);
            if inverted {
                data.be32(5, 1);
            }
        })
    }

    /// Goes on if the key from register 1 on is in the map, with what it maps to in register 1 on.
    pub fn map(&mut self, map: &str) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, map);
            data.be32(2, 1);
            data.be32(3, 1);
        })
    }

    /// Loads a constant.
    pub fn load(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |data| {
            data.be32(1, register);
            data.nest(2, |nest| nest.attribute(1, value));
        })
    }

    /// Redirects the connection to the address in register 1 and the port in `port_register`.
    pub fn redirect(&mut self, family: u8, port_register: u32) -> &mut Self {
        const DESTINATION: u32 = 1;
        self.expression("nat", |data| {
            data.be32(1, DESTINATION);
            data.be32(2, u32::from(family));
            data.be32(3, 1);
            data.be32(5, port_register);
        })
    }

    /// Gives the connection the outgoing interface's address as its source.
    pub fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    /// Ends the rule.
    pub fn verdict(&mut self, verdict: Verdict) -> &mut Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3_i32, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        self.expression("immediate", |data| {
            data.be32(1, 0);
            data.nest(2, |nest| {
                nest.nest(2, |nest| {
                    nest.be32(1, code.cast_unsigned());
                    if let Some(chain) = chain {
                        nest.text(2, chain);
                    }
                });
            });
        })
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        self.list.nest(1, |nest| {
            nest.text(1, name);
            nest.nest(2, fill);
        });
        self
    }
}

fn message_type(kind: u8) -> u16 {
    u16::from(SUBSYSTEM) << 8 | u16::from(kind)
}

fn element(list: &mut Body<'_>, key: &[u8], data: Option<&[u8]>, flags: u32) {
    list.nest(1, |item| {
        if flags != 0 {
            item.be32(3, flags);
        }
        item.nest(1, |nest| nest.attribute(1, key));
        if let Some(data) = data {
            item.nest(2, |nest| nest.attribute(1, data));
        }
    });
}

fn range(list: &mut Body<'_>, first: &[u8], end: &[u8]) {
    element(list, first, None, 0);
    element(list, end, None, ELEMENT_INTERVAL_END);
}

/// As `nft` numbers concatenations: six bits a part.
fn concatenated_type(parts: &[Type]) -> u32 {
    parts.iter().fold(0, |all, part| all << 6 | *part as u32)
}

/// A part of a concatenation begins at a multiple of four bytes.
fn concatenated_length(parts: &[Type]) -> u32 {
    match parts {
        [one] => one.length(),
        parts => parts.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    }
}

/// What `nft list` needs to print the set: byte orders.
fn user_data(set: &Set) -> Vec<u8> {
    let order = |parts: &[Type]| match parts {
        [one] => one.byte_order(),
        _ => 0,
    };
    let mut bytes = vec![0, 4];
    bytes.extend_from_slice(&order(set.key).to_ne_bytes());
    if !set.data.is_empty() {
        bytes.extend_from_slice(&[1, 4]);
        bytes.extend_from_slice(&order(set.data).to_ne_bytes());
    }
    bytes
}
