//! PURE: what a request, an image and a host add up to. No file, clock or system call here.
//!
//! [`config`] decides at creation what will run; [`mounts`] what it will see; [`spec`] turns a record into
//! the OCI document the runtime plans from, at each start.

pub(crate) mod accounts;
pub mod apparmor;
pub mod capabilities;
pub mod config;
pub mod devices;
pub mod events;
pub mod health;
pub mod hosts;
pub mod mounts;
pub mod namespaces;
pub mod platform;
pub mod resources;
pub mod signal;
pub mod spec;
pub mod users;
pub mod vm;
