//! Real networks, each test in a network and mount namespace of its own.

mod connect;
mod dns;
mod lifecycle;
mod publish;
mod world;
