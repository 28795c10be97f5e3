//! What exists: records, names, plans, volumes.
//!
//! The engine introduces the rooms below it to one another (image, network, sandbox) and owns what none of
//! them knows: which containers and volumes there are. Requests come from a door (`cli`, later the API) as
//! [`request`] types; [`plan`] decides without touching anything; the verbs in `container`, `image`,
//! `network` and `volume` act.

pub mod build;
pub mod cdi;
pub mod check;
pub mod compare;
pub mod container;
pub mod disk;
mod documents;
mod engine;
pub mod error;
pub mod event;
pub mod host;
mod image;
pub mod kernel;
mod ledger;
pub mod machine;
pub mod network;
pub mod paths;
pub mod plan;
pub mod prune;
pub mod record;
pub mod request;
pub mod rootless;
pub mod span;
pub mod timing;
pub mod volume;

pub use engine::{Engine, SUPERVISOR, companion};
pub use error::{Error, Kind, Result};
pub use paths::Paths;
pub use timing::Timing;

/// The build room's words, for the doors.
pub use cata_build as dockerfile;
/// The image room's words, for the doors.
pub use cata_image as images;
/// The kernel room's words, for the doors.
pub use cata_kernel as kernels;
/// The network room's words, for the doors.
pub use cata_network as networks;
/// Streams of a container, for the doors.
pub use cata_sandbox::client::Attached;
/// The journal of events, for the doors.
pub use cata_sandbox::journal;
pub use cata_sandbox::launch;
pub use cata_sandbox::protocol::{Streams, Until};
pub use cata_sandbox::stamp::Stamp;
pub use cata_sandbox::{health, status};
