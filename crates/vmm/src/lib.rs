//! The second hull's hardware: a [`config::MachineConfig`] in, a running machine on KVM out.
//!
//! Nothing here opens a path: whatever a machine may touch is handed in as an open descriptor, so that the
//! process can be shut into an empty root before the guest's first instruction.

pub mod config;
