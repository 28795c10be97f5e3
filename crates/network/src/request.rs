//! What is asked of the network room, and what it answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cata_spec::{ContainerId, Name};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dns::DnsPlan;

/// `network create`, validated by shape but not yet against what exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateNetwork {
    /// Its name.
    pub name: Name,
    /// `bridge` is the only driver so far.
    pub driver: String,
    /// `--subnet`, `--gateway`, `--ip-range` as typed; empty: the next free default pool.
    pub subnets: Vec<String>,
    /// See `subnets`.
    pub gateways: Vec<String>,
    /// See `subnets`.
    pub ip_ranges: Vec<String>,
    /// `--internal`: no way out, no published ports.
    pub internal: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--opt`.
    pub options: Vec<(String, String)>,
}

/// One container's wish to be on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// The network.
    pub network: Name,
    /// Names others can resolve it by, besides the container's name and short id.
    pub aliases: Vec<String>,
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub mac: Option<[u8; 6]>,
    /// `--gw-priority`: the default routes are the network's with the highest one.
    #[serde(default)]
    pub gateway_priority: i32,
    /// `--link`: what this container alone calls others, and the name by which the network knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// Another name for another container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// A name that the network knows.
    pub to: String,
    /// What it is called by who has the link.
    pub alias: String,
}

impl EndpointRequest {
    /// A wish for a network, and nothing more.
    #[must_use]
    pub fn new(network: Name) -> Self {
        Self {
            network,
            aliases: Vec::new(),
            ipv4: None,
            ipv6: None,
            mac: None,
            gateway_priority: 0,
            links: Vec::new(),
        }
    }
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port to publish; `host_port` 0 asks for any free one, `host_port_last` for the first free one of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// `None`: every address of the host, both families.
    pub host_ip: Option<IpAddr>,
    /// 0: the engine picks from the host's ephemeral range.
    pub host_port: u16,
    /// The end of a range that begins with `host_port`; 0: no range.
    #[serde(default)]
    pub host_port_last: u16,
    /// The port inside.
    pub container_port: u16,
    /// TCP or UDP.
    pub transport: Transport,
}

/// Whose a place on networks is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The container.
    pub container: ContainerId,
    /// Its name: resolvable on user networks.
    pub name: Name,
    /// The host name (also resolvable, as Docker does).
    pub hostname: String,
}

/// A container's whole network wish (its own namespace with zero or more networks).
#[derive(Debug)]
pub struct ConnectRequest {
    /// Whose.
    pub who: Who,
    /// Networks to join; empty: only a loopback (`--network none`).
    pub endpoints: Vec<EndpointRequest>,
    /// Ports to publish on the endpoint that has the default route.
    pub ports: Vec<PortRequest>,
    /// Sysctls `net.*` to set inside, as (`net.ipv4.ip_forward`, `1`).
    pub sysctls: Vec<(String, String)>,
    /// Upstream name servers for the embedded DNS; empty: the host's.
    pub dns_upstream: Vec<IpAddr>,
    /// For a virtual machine: instead of interfaces in the namespace there are tap devices on the bridges.
    pub taps: bool,
    /// The new namespace's owner directory: `<state>/<id>/`, for whatever must be found again.
    pub state_dir: PathBuf,
    /// The network namespace to furnish, made by somebody else; `None`: a new one.
    pub namespace: Option<OwnedFd>,
}

/// Where what arrives at one socket goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// What the socket is.
    pub transport: Transport,
    /// The container's address and port.
    pub target: SocketAddr,
}

/// One interface.
#[derive(Debug)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// The bridge that the other end is on.
    pub bridge: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet, if not the default.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Where default routes lead.
    pub gateways: Vec<IpAddr>,
}

/// A container that runs, and what it has of networks.
#[derive(Debug)]
pub struct Present {
    /// Whose.
    pub who: Who,
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
    /// What it has published, or would if a network led out.
    pub ports: Vec<PublishedPort>,
    /// What it wants to publish, should none of it have been reserved yet.
    pub wanted: Vec<PortRequest>,
    /// Its network namespace.
    pub namespace: OwnedFd,
    /// Whether a name service listens inside.
    pub names: bool,
    /// See [`ConnectRequest::dns_upstream`].
    pub dns_upstream: Vec<IpAddr>,
    /// What it calls others.
    pub links: Vec<Link>,
}

/// What a running container has after its networks were changed, in place of what it had.
#[derive(Debug)]
pub struct Changed {
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
    /// Where it was by half: a killed change's, taken away now.
    pub left: Vec<Endpoint>,
    /// What it has reserved of the host's ports.
    pub ports: Vec<PublishedPort>,
    /// Whether these are published: by the endpoint that has the default route.
    pub published: bool,
    /// Bound sockets that are new: to be held beside those there are.
    pub reservations: Vec<OwnedFd>,
    /// If there was no name service and there is one now: its sockets.
    pub dns_sockets: Vec<OwnedFd>,
    /// Whether a name service listens inside.
    pub names: bool,
    /// What is served from now on.
    pub services: ServicePlan,
    /// Listening sockets that are new, for the plan's forwards.
    pub forwarded: Vec<OwnedFd>,
    /// How to take everything away.
    pub teardown: Vec<Teardown>,
}

/// What exists after a connect.
#[derive(Debug)]
pub struct Connected {
    /// The container's network namespace, configured and up.
    pub namespace: OwnedFd,
    /// One a network, in the order asked.
    pub endpoints: Vec<Endpoint>,
    /// Ports as really published (0 resolved).
    pub ports: Vec<PublishedPort>,
    /// Bound sockets that keep host ports reserved: hold them while the container lives.
    pub reservations: Vec<OwnedFd>,
    /// UDP and TCP listeners inside the namespace to which 127.0.0.11:53 leads, when on a user network.
    pub dns_sockets: Vec<OwnedFd>,
    /// For a virtual machine: its network devices, and what it is to know of each.
    pub taps: Vec<(OwnedFd, Interface)>,
    /// What whoever owns the container serves: names with `dns_sockets`, then ports with `forwarded`.
    pub services: ServicePlan,
    /// Listening sockets of the host's network, one for each of the plan's forwards.
    pub forwarded: Vec<OwnedFd>,
    /// How to take everything away again without any knowledge of networks.
    pub teardown: Vec<Teardown>,
}

/// What is served beside a container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ServicePlan {
    /// The name service, when on a user network.
    pub names: Option<DnsPlan>,
    /// Published ports, where they are not the firewall's.
    pub forwards: Vec<Forward>,
}

/// One step of taking an endpoint away; idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Teardown {
    /// Messages to send in the host's namespace: (netlink protocol, messages).
    Netlink(i32, Vec<u8>),
    /// A lease or record to unlink.
    Unlink(PathBuf),
    /// Every file of a directory whose name ends like this: the container's names, whatever they are by then.
    UnlinkEnding(PathBuf, String),
    /// A netlink dump whose every answer is sent back as a message of type `kind`: what is found goes.
    NetlinkEach {
        /// Netlink protocol.
        protocol: i32,
        /// The request.
        dump: Vec<u8>,
        /// The type under which each answer is sent back.
        kind: u16,
    },
}

/// A container's place on a network, as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: Name,
    /// The network's id (64 hex).
    pub network_id: String,
    /// This endpoint's id (64 hex).
    pub endpoint_id: String,
    /// Address and prefix length.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Default gateway.
    pub gateway4: Option<Ipv4Addr>,
    /// Address and prefix length.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Default gateway.
    pub gateway6: Option<Ipv6Addr>,
    /// Interface address.
    pub mac: [u8; 6],
    /// Interface name inside.
    pub interface: String,
    /// Every name it can be resolved by.
    pub aliases: Vec<String>,
    /// See [`EndpointRequest::gateway_priority`].
    #[serde(default)]
    pub gateway_priority: i32,
}

/// A port as really published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `0.0.0.0`/`::` for every address.
    pub host_ip: IpAddr,
    /// Never 0.
    pub host_port: u16,
    /// The port inside.
    pub container_port: u16,
    /// TCP or UDP.
    pub transport: Transport,
}
