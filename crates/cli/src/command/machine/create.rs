//! `machine create`.

use cata_engine::machine::MachineRequest;
use cata_engine::request::MonitorRequest;
use cata_spec::Name;
use clap::Args;

use crate::options::create::Ports;
use crate::parse;
use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Virtual processors (as many as the host has)
    #[arg(long, value_name = "int", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory (2g)
    #[arg(short, long, value_name = "bytes", value_parser = parse::size::binary)]
    memory: Option<u64>,
    /// Size of its disk (64g); what was never written takes no space
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    disk: Option<u64>,
    /// Publish a port of the machine's on the host ([ip:][host:]machine[/protocol])
    #[arg(short, long, value_name = "list", value_parser = crate::options::create::publish)]
    publish: Vec<Ports>,
    /// Connect to a network of the host's engine
    #[arg(long, value_name = "network")]
    network: Vec<String>,
    /// What its own files are (busybox)
    #[arg(long, value_name = "image")]
    image: Option<String>,
    /// What runs it: auto, kvm or qemu
    #[arg(long, value_name = "string", value_parser = parse::namespace::monitor)]
    vmm: Option<MonitorRequest>,
    /// Its kernel by name
    #[arg(long, value_name = "string")]
    kernel: Option<String>,
    #[arg(required = true, value_name = "NAME")]
    name: String,
}

impl Verb for Create {
    fn call(self, session: &Session) -> Outcome {
        let name = Name::parse(&self.name).map_err(|error| Failure::flag(error.to_string()))?;
        let beside = parse::network::Beside::default();
        let request = MachineRequest {
            image: self.image,
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            ports: self.publish.into_iter().flat_map(|ports| ports.0).collect(),
            network: parse::network::parse(&self.network, &beside)?,
            monitor: self.vmm.unwrap_or_default(),
            kernel: self.kernel,
            ..MachineRequest::new(name)
        };
        let record = session.engine()?.machine_create(&request, &Screen::new(To::Stderr))?;
        session::print_line(record.name.as_str())?;
        Ok(Exit::OK)
    }
}
