//! Addresses: which subnet a network gets ([`pool`]), which address a container gets ([`lease`]).

pub mod lease;
pub mod pool;
