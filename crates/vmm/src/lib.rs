//! The second hull's hardware: a [`config::MachineConfig`] in, a running machine on KVM out.
//!
//! Nothing here opens a path: whatever a machine may touch is handed in as an open descriptor, so that the
//! process can be shut into an empty root before the guest's first instruction.

mod boot;
mod bus;
pub mod config;
mod ending;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod jail;
mod kvm;
mod layout;
mod machine;
mod memory;
pub mod probe;
mod vcpu;
mod virtio;

pub use error::{End, MachineError};
pub use machine::{Facts, Machine, Running};
