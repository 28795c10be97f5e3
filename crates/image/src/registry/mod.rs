//! Speaking to registries: OCI distribution, authentication, mirrors.

pub(crate) mod challenge;
pub(crate) mod client;
pub mod config;
pub(crate) mod credentials;
pub(crate) mod download;
pub mod login;
pub(crate) mod manifest;
pub(crate) mod token;
pub(crate) mod transport;
pub(crate) use transport::web_agent;
pub(crate) mod upload;

pub use config::Config;
