//! What can go wrong with a network, carrying what it went wrong on.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::netlink::NetlinkError;

/// Why a request about networks was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network has this name or id.
    #[error("network {0} not found")]
    UnknownNetwork(String),
    /// An id prefix that fits several networks.
    #[error("network id prefix {0} is ambiguous")]
    AmbiguousNetwork(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// `bridge`, `host` and `none` are always there.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// Containers are still on it.
    #[error("network {network} has active endpoints (name:\"{}\")", .containers.join("\", \""))]
    ActiveEndpoints {
        /// The network.
        network: String,
        /// Names of the containers on it.
        containers: Vec<String>,
    },
    /// A field of a request that makes no sense by itself.
    #[error("invalid {field} `{value}`: {reason}")]
    Invalid {
        /// Which one, as a user calls it (`subnet`, `alias`).
        field: &'static str,
        /// As typed.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something Docker has and this engine has not.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The subnet meets one that is in use.
    #[error("pool overlaps with other one on this address space: {subnet} and {other}")]
    PoolOverlap {
        /// The one asked for.
        subnet: String,
        /// What it meets: a network or a route of the host.
        other: String,
    },
    /// Every default pool is taken.
    #[error("could not find an available, non-overlapping address pool among the defaults")]
    NoFreePool,
    /// The address asked for belongs to another container.
    #[error("address {address} on network {network} already in use")]
    AddressInUse {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// The address asked for is not one of the network's.
    #[error("address {address} does not belong to a subnet of network {network}")]
    AddressOutside {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// No address is left.
    #[error("no available addresses on network {network} in {subnet}")]
    PoolExhausted {
        /// The network.
        network: String,
        /// Where was looked.
        subnet: String,
    },
    /// Someone on this host has the port.
    #[error("Bind for {}:{port} failed: port is already allocated", bracketed(.address))]
    PortInUse {
        /// The host address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// The host address of a published port is not one of this host's, or may not be bound.
    #[error("cannot bind {}:{port}", bracketed(.address))]
    Port {
        /// The host address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses, routes or firewall.
    #[error("{action}")]
    Netlink {
        /// What was being done, with its object.
        action: String,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// A file of a network could not be read or written.
    #[error("{action} {}", .path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A record is not what this version writes.
    #[error("unreadable record {}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it.
        source: serde_json::Error,
    },
    /// A kernel setting was refused.
    #[error("sysctl {key}={value}")]
    Sysctl {
        /// `net.ipv4.ip_forward`.
        key: String,
        /// The value.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The user's network could not be entered.
    #[error("cannot enter the user's network")]
    Inside(#[source] io::Error),
    /// The container's network namespace could not be made.
    #[error("{action} in a new network namespace")]
    Namespace {
        /// The step.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does not exist.
    NotFound,
    /// Something else has it.
    Conflict,
    /// The request is wrong.
    InvalidArgument,
    /// The caller lacks a privilege.
    Denied,
    /// Not offered.
    Unsupported,
    /// Nothing is left.
    Exhausted,
    /// The host is not as expected.
    Internal,
}

impl Error {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnknownNetwork(_) => Kind::NotFound,
            Self::NetworkExists(_)
            | Self::ActiveEndpoints { .. }
            | Self::AddressInUse { .. }
            | Self::PortInUse { .. } => Kind::Conflict,
            Self::AmbiguousNetwork(_)
            | Self::Invalid { .. }
            | Self::AddressOutside { .. }
            | Self::PoolOverlap { .. } => Kind::InvalidArgument,
            Self::Predefined(_) => Kind::Denied,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::NoFreePool | Self::PoolExhausted { .. } => Kind::Exhausted,
            Self::Netlink { source, .. } if source.is_denied() => Kind::Denied,
            Self::Port { source, .. }
            | Self::File { source, .. }
            | Self::Sysctl { source, .. }
            | Self::Namespace { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::AddrNotAvailable => Kind::InvalidArgument,
                _ => Kind::Internal,
            },
            Self::Netlink { .. } | Self::Record { .. } | Self::Inside(_) => Kind::Internal,
        }
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Port { port, source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied && *port < 1024 =>
            {
                Some(
                    "ports below 1024 are root's unless the sysctl net.ipv4.ip_unprivileged_port_start says less: \
                     publish it on another one"
                        .to_owned(),
                )
            }
            Self::UnknownNetwork(_) => Some("`network ls` shows the networks there are".to_owned()),
            Self::PortInUse { port, .. } => {
                Some(format!("`ss -lnp 'sport = :{port}'` shows who has the port"))
            }
            Self::NoFreePool => Some("give one with --subnet".to_owned()),
            Self::PoolOverlap { .. } => Some("give another one with --subnet".to_owned()),
            Self::ActiveEndpoints { .. } => Some("remove these containers first".to_owned()),
            _ if self.kind() == Kind::Denied && !matches!(self, Self::Predefined(_)) => {
                Some("networks need CAP_NET_ADMIN: run as root, or use --network host or none".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn inside(errno: rustix::io::Errno) -> Self {
        Self::Inside(errno.into())
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::File { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn netlink(action: impl Into<String>) -> impl FnOnce(NetlinkError) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }
}

fn bracketed(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
