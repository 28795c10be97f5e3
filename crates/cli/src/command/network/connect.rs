//! `network connect`.

use std::net::{Ipv4Addr, Ipv6Addr};

use cata_engine::request::{EndpointRequest, Link};
use clap::Args;

use crate::parse::network;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Add a name by which others on the network find the container
    #[arg(long, value_name = "strings")]
    alias: Vec<String>,
    /// Take the container's default routes, and its published ports, before networks of a lower priority
    #[arg(long, value_name = "int", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i32,
    /// Set the IPv4 address
    #[arg(long, value_name = "string")]
    ip: Option<Ipv4Addr>,
    /// Set the IPv6 address
    #[arg(long, value_name = "string")]
    ip6: Option<Ipv6Addr>,
    /// Add a name for another container, for this one alone (container[:alias])
    #[arg(long, value_name = "list", value_parser = network::link)]
    link: Vec<Link>,
    #[arg(required = true, value_name = "NETWORK")]
    network: String,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

impl Verb for Connect {
    fn call(self, session: &Session) -> Outcome {
        let wish = EndpointRequest {
            aliases: self.alias,
            ipv4: self.ip,
            ipv6: self.ip6,
            gateway_priority: self.gw_priority,
            links: self.link,
            ..EndpointRequest::new(network::name(&self.network)?)
        };
        for warning in session.engine()?.network_connect(&self.network, &self.container, wish)? {
            session::note(format!("WARNING: {warning}"));
        }
        Ok(Exit::OK)
    }
}
