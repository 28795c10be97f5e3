//! Links, addresses, firewall, published ports, names.
//!
//! | module | owns |
//! |---|---|
//! | [`request`] | what is asked and answered |
//! | [`networks`] | the handle: create, list, inspect, remove; each other verb is where it is done |
//! | `files`, `random` | documents and locks on disk; ids and addresses that are nobody else's |
//! | [`record`] | what is persisted under `<root>/networks/` |
//! | [`create`] | from `network create` to a record |
//! | [`ipam`] | pools and leases |
//! | [`bridge`] | a network's bridge on the host |
//! | [`release`] | taking away what a killed supervisor left |
//! | [`connect`] | a container's namespace and its endpoints; another network for a running one |
//! | [`firewall`] | the nf_tables table `catamaran` |
//! | [`conntrack`] | flows of UDP ports, which outlive a container |
//! | [`rename`] | a running container's new name |
//! | [`port`] | reservations of published ports |
//! | [`dns`], [`forward`] | the name service; published ports without a firewall: all that a supervisor links |
//! | [`inside`] | a user's network, which stands for the host's |
//! | [`netlink`] | messages and sockets |

pub mod bridge;
pub mod connect;
pub mod conntrack;
pub mod create;
pub mod dns;
pub mod error;
mod files;
pub mod firewall;
pub mod forward;
pub mod inside;
pub mod ipam;
pub mod netlink;
pub mod networks;
pub mod port;
mod random;
pub mod record;
pub mod release;
pub mod rename;
pub mod request;

pub use error::{Error, Kind};
pub use networks::{Inspection, Networks};
pub use record::{DEFAULT, Driver, EndpointRecord, Network, Pool};
