//! Real networks, each test in a network and mount namespace of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod connect;
mod dns;
mod lifecycle;
mod publish;
mod world;
