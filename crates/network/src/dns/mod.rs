//! The name service inside a container's network: who is called what on its networks.
//!
//! Served by the container's supervisor on sockets that were made inside the container's namespace; asks
//! upstream servers from the host's. Names are read from the networks' directories at each question, so
//! there is nothing to invalidate. This is the only part of the crate that a supervisor links.
//!
//! [`message`] reads and writes messages, [`answer`] decides, [`zone`] reads directories, [`resolver`] owns
//! the sockets, [`upstream`] the questions that were passed on, [`stream`] the clients that use TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod answer;
pub mod message;
pub mod resolv_conf;
pub mod resolver;
mod stream;
mod upstream;
pub mod zone;

pub use resolver::Resolver;

/// Where the name service listens, as images hard-code it.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Everything a resolver has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPlan {
    /// `<root>/networks/<name>/` of every network the container is on.
    pub networks: Vec<PathBuf>,
    /// Who is asked for names that no network knows, in order.
    pub upstream: Vec<SocketAddr>,
    /// Names that mean the host (`host.docker.internal`), and its addresses on these networks.
    pub hosts: Vec<(String, IpAddr)>,
    /// Names that mean another name, for this container alone.
    #[serde(default)]
    pub links: Vec<(String, String)>,
}
