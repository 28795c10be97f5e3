//! What is persisted of a network and of its endpoints.
//!
//! ```text
//! <root>/networks/<name>/record.json          a Network
//!                        lock                 flock: shared by who connects, exclusive for who makes or removes
//!                        leases/<ip>          symbolic link to the container's id: exclusive by creation
//!                        names/<name>@<id>    symbolic link to the addresses of a container
//!                        endpoints/<id>.json  an EndpointRecord, written before the effects it describes
//! ```
//! Symbolic links, because making one is a single call that is atomic, exclusive and complete.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use cata_spec::{ContainerId, Name};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::request::{Endpoint, PublishedPort};

/// The network that containers join when none is asked for.
pub const DEFAULT: &str = "bridge";

/// The version that this program writes.
pub const VERSION: u32 = 1;

/// How containers on a network are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By a bridge.
    Bridge,
    /// By the host's own stack.
    Host,
    /// Not at all.
    Null,
}

impl Driver {
    /// As Docker prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A subnet of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its network address and prefix length.
    pub subnet: IpNet,
    /// The bridge's address.
    pub gateway: IpAddr,
    /// Where containers' addresses are taken from, if not the whole subnet.
    pub range: Option<IpNet>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// [`VERSION`].
    pub version: u32,
    /// 64 hexadecimal characters.
    pub id: String,
    /// Its name.
    pub name: Name,
    /// How it connects.
    pub driver: Driver,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// No way out.
    pub internal: bool,
    /// Whether containers get an IPv6 address.
    pub ipv6: bool,
    /// At most one a family; none for `host` and `none`.
    pub pools: Vec<Pool>,
    /// The bridge's interface; empty for `host` and `none`.
    pub interface: String,
    /// The bridge's own address.
    pub mac: [u8; 6],
    /// Largest packet of its links, if not the kernel's default.
    pub mtu: Option<u32>,
    /// Whether traffic to the outside takes the host's address.
    pub masquerade: bool,
    /// Where ports are published when a request names no address.
    pub host_binding: Option<Ipv4Addr>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`, as typed.
    pub options: BTreeMap<String, String>,
}

impl Network {
    /// `bridge`, `host` or `none`.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    /// Whether names are resolved on it: on every bridge but the default one, as with Docker.
    #[must_use]
    pub fn resolves_names(&self) -> bool {
        self.driver == Driver::Bridge && !self.is_predefined()
    }

    /// The subnet of a family.
    #[must_use]
    pub fn pool(&self, v6: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.gateway.is_ipv6() == v6)
    }
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Who.
    pub container: ContainerId,
    /// Its name at the time.
    pub name: Name,
    /// Where.
    pub endpoint: Endpoint,
    /// What is published through this endpoint.
    pub ports: Vec<PublishedPort>,
}
