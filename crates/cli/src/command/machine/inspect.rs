//! `machine inspect`.

use clap::Args;
use serde_json::json;

use super::ls::state;
use crate::render::error::Failure;
use crate::render::time;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,
}

impl Verb for Inspect {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let mut list = Vec::new();
        for name in &self.machines {
            let view = engine.machine_view(name)?;
            let (record, status) = (&view.record, &view.status);
            let facts = engine.machine_monitor(record);
            let addresses: Vec<_> =
                view.network.endpoints.iter().filter_map(|e| e.ipv4).map(|(a, _)| a).collect();
            list.push(json!({
                "Name": record.name.as_str(),
                "Id": record.id.as_str(),
                "Created": time::rfc3339(record.created),
                "State": state(&view),
                "Error": status.error,
                "ExitCode": status.exit_code,
                "Cpus": engine.machine_cpus(record),
                "Memory": record.request.resources.memory,
                "Disk": {
                    "Size": record.request.machine.as_ref().map(|disk| disk.bytes),
                    "Used": engine.machine_disk_used(record),
                },
                "Image": record.image.reference,
                "Addresses": addresses,
                "Monitor": facts.as_ref().map(|facts| &facts.monitor),
                "Reason": facts.as_ref().map(|facts| &facts.reason),
                "Kernel": facts.as_ref().map(|facts| &facts.kernel),
            }));
        }
        let text = serde_json::to_string_pretty(&list)
            .map_err(|error| Failure::client(format!("cannot write the details: {error}")))?;
        session::print_line(text)?;
        Ok(Exit::OK)
    }
}
