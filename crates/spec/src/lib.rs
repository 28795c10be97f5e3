//! OCI and Docker documents as types.
//!
//! Plain data: parsing, validation and printing; no files, no clock, no network.

pub mod digest;
pub mod id;
pub mod image;
pub mod platform;
pub mod reference;

pub use digest::Digest;
pub use id::{ContainerId, Name};
/// The OCI runtime specification's types.
pub use oci_spec::runtime;
pub use platform::Platform;
pub use reference::Reference;
