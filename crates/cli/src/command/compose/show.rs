//! `ps`, `top`, `port`: the containers of services.

use clap::Args;
use jiff::tz::TimeZone;

use super::existing;
use super::project::load;
use crate::command::container;
use crate::render::error::Failure;
use crate::render::listing::{self, Kind, Row};
use crate::render::time;
use crate::row::container::{cells, from_view};
use crate::row::port::address;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb, typed};

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers, those of `run` too, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Do not shorten columns
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Print only the names of services
    #[arg(long)]
    services: bool,
    /// Show only those in this state (running, exited, …)
    #[arg(long, value_name = "list")]
    status: Vec<String>,
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
}

const KIND: Kind = Kind {
    table: "{{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}",
    quiet: "{{.ID}}",
    headings: &[
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("Service", "SERVICE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("ID", "CONTAINER ID"),
    ],
};

impl Verb for Ps {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.names)?;
        let engine = session.engine()?;
        for name in &self.names {
            loaded.service(name)?;
        }
        let mut found = existing::all(engine, &loaded.project.name)?;
        found.retain(|one| self.names.is_empty() || self.names.contains(&one.service));
        let by_state = !self.status.is_empty();
        found.retain(|one| self.all || by_state || one.runs());
        found.retain(|one| self.all || !one.one_off || one.runs());
        let (now, zone) = (time::now(), TimeZone::system());
        let mut rows: Vec<Row> = Vec::new();
        let mut services: Vec<String> = Vec::new();
        for one in &found {
            let facts = from_view(&one.view);
            if by_state && !self.status.iter().any(|state| state == facts.state) {
                continue;
            }
            services.push(one.service.clone());
            let row = cells(&facts, now, &zone, !self.no_trunc && !self.quiet);
            rows.push(
                row.with("Name", facts.name.clone())
                    .with("Service", one.service.clone())
                    .with("Project", loaded.project.name.clone()),
            );
        }
        if self.services {
            services.dedup();
            services.iter().try_for_each(session::print_line)?;
            return Ok(Exit::OK);
        }
        listing::print(&KIND, &rows, self.format.as_deref(), self.quiet)?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Top {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let mut found = existing::of(session.engine()?, &loaded, &self.services)?;
        found.retain(existing::Existing::runs);
        for (index, one) in found.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            session::print_line(format!("{gap}{}", one.name()))?;
            typed::<container::top::Top>(&container::TOP, vec![one.name().to_owned()])?.call(session)?;
        }
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    /// tcp or udp
    #[arg(long, value_name = "string", default_value = "tcp")]
    protocol: String,
    /// Which container of the service
    #[arg(long, value_name = "int")]
    index: Option<u32>,
    #[arg(required = true, value_name = "SERVICE")]
    service: String,
    #[arg(required = true, value_name = "PRIVATE_PORT")]
    port: u16,
}

impl Verb for Port {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, std::slice::from_ref(&self.service))?;
        let one = existing::one(session.engine()?, &loaded, &self.service, self.index)?;
        let ports = from_view(&one.view).ports;
        let fits = ports.iter().filter(|port| port.container == self.port && port.protocol == self.protocol);
        let mut hosts = fits.filter_map(|port| port.host).peekable();
        if hosts.peek().is_none() {
            let text =
                format!("no port {}/{} of container {} is published", self.port, self.protocol, one.name());
            return Err(Failure::client(text));
        }
        hosts.take(1).try_for_each(|(ip, port)| session::print_line(address(ip, port)))?;
        Ok(Exit::OK)
    }
}
