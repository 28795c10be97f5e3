//! `port`: where a container's ports are published.

use cata_engine::container::live::View;
use clap::Args;

use crate::render::error::Failure;
use crate::row::container::from_view;
use crate::row::port;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Port {
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "PRIVATE_PORT")]
    port: Option<String>,
}

impl Verb for Port {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let record = engine.find(&self.container)?;
        let views = engine.views()?;
        let view = views.iter().find(|view| view.record.id == record.id);
        let view = view.ok_or_else(|| Failure::usage(format!("No such container: {}", self.container)))?;
        session::print(text(view, &self.container, self.port.as_deref())?)?;
        Ok(Exit::OK)
    }
}

fn text(view: &View, container: &str, wanted: Option<&str>) -> Result<String, Failure> {
    let mut ports = from_view(view).ports;
    ports.sort();
    let published = ports.iter().filter_map(|p| p.host.map(|(ip, host)| (p, port::address(ip, host))));
    let Some(wanted) = wanted else {
        return Ok(published
            .map(|(p, host)| format!("{}/{} -> {host}\n", p.container, p.protocol))
            .collect());
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let number: u16 = number.parse().map_err(|_| Failure::usage(format!("invalid port '{wanted}'")))?;
    let lines: String = published
        .filter(|(p, _)| p.container == number && p.protocol == protocol)
        .map(|(_, host)| format!("{host}\n"))
        .collect();
    if lines.is_empty() {
        return Err(Failure::usage(format!(
            "no public port '{number}/{protocol}' published for {container}"
        )));
    }
    Ok(lines)
}
