//! The image room against a real registry (`docker-registry`) and independent tools (`skopeo`, `podman`).
//!
//! Everything happens on loopback and in temporary directories. What a test needs and the machine lacks is
//! said, and the test is counted as skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they miss"
)]

mod archive;
mod auth;
mod broken;
mod check;
mod fixture;
mod index;
mod layers;
mod proxy;
mod registry;
mod removal;
