//! `network create`.

use cata_engine::request::CreateNetwork;
use cata_spec::Name;
use clap::Args;

use crate::parse::key_value;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver that manages the network (bridge)
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    driver: String,
    /// Gateway of a subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Keep the network from reaching anything outside it
    #[arg(long)]
    internal: bool,
    /// Give containers addresses from this part of a subnet only
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Give containers IPv6 addresses too
    #[arg(long)]
    ipv6: bool,
    /// Set a label
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Set an option of the driver
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    /// Subnet in CIDR form
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    subnet: Vec<String>,
    #[arg(required = true, value_name = "NETWORK")]
    name: String,
}

impl Verb for Create {
    fn call(self, session: &Session) -> Outcome {
        let name = Name::parse(&self.name).map_err(|e| Failure::usage(e.to_string()))?;
        let network = session.engine()?.network_create(&CreateNetwork {
            name,
            driver: self.driver,
            subnets: self.subnet,
            gateways: self.gateway,
            ip_ranges: self.ip_range,
            internal: self.internal,
            ipv6: self.ipv6,
            labels: key_value::labels(&self.label)?.into_iter().collect(),
            options: key_value::pairs(&self.opt, "option")?.into_iter().collect(),
        })?;
        session::print_line(&network.id)?;
        Ok(Exit::OK)
    }
}
