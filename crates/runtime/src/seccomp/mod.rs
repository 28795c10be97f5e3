//! System call filters: Docker's default profile, profiles in Docker's JSON, and the compiler to BPF.
//!
//! Everything but [`Program::load`] is pure. [`docker_default`] and [`profile::Profile::resolve`] give an OCI
//! `LinuxSeccomp`; [`compile`] makes the [`Program`] that a plan carries, so that nobody who only runs a
//! container needs the tables of names.
//!
//! - Architectures: x86_64 with its 32-bit one (i386), and aarch64. x32 calls are answered ENOSYS, as a kernel
//!   without x32 does, whatever the profile says of that architecture. 32-bit ARM processes are killed on
//!   aarch64: their table of calls is not carried.
//! - As runc does, calls newer than every call the profile names are answered ENOSYS rather than the profile's
//!   default error, so that a C library falls back to what it knows.
//! - Of several rules for one call those with conditions on arguments are asked first, in their order.

mod compile;
mod docker;
mod error;
pub mod profile;
mod program;
mod syscalls;

pub use compile::{Compiled, compile, compile_for};
pub use docker::docker_default;
pub use error::SeccompError;
pub use program::Program;
pub use syscalls::Arch;
