//! OCI and Docker documents as types.
//!
//! Plain data: parsing, validation and printing; no files, no clock, no network.

pub mod id;

pub use id::{ContainerId, Name};
/// The OCI runtime specification's types.
pub use oci_spec::runtime;
