//! `machine ls`.

use cata_engine::Engine;
use cata_engine::container::live::View;
use cata_engine::status::StatusKind;
use clap::Args;

use crate::options::list::ListOptions;
use crate::parse::filter::Filters;
use crate::render::listing::{self, Kind, Row};
use crate::render::size;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.Name}}\t{{.State}}\t{{.CPUs}}\t{{.Memory}}\t{{.Disk}}\t{{.Address}}",
    quiet: "{{.Name}}",
    headings: &[("CPUs", "CPUS"), ("Disk", "DISK USED / SIZE")],
};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    list: ListOptions,
}

impl Verb for List {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.list.filter, &["name"])?;
        let engine = session.engine()?;
        let machines = engine.machine_list()?;
        let wanted = machines
            .iter()
            .filter(|view| filters.any("name", |name| view.record.name.as_str().contains(name)));
        let rows: Vec<Row> = wanted.map(|view| cells(engine, view)).collect();
        listing::print(&KIND, &rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(Exit::OK)
    }
}

/// `running`, `exited (125)`.
pub(crate) fn state(view: &View) -> String {
    match view.status.status {
        StatusKind::Created => "created".to_owned(),
        StatusKind::Running => "running".to_owned(),
        StatusKind::Paused => "paused".to_owned(),
        StatusKind::Restarting => "restarting".to_owned(),
        StatusKind::Exited => match view.status.exit_code {
            0 => "stopped".to_owned(),
            code => format!("failed ({code})"),
        },
    }
}

fn cells(engine: &Engine, view: &View) -> Row {
    let request = &view.record.request;
    let size = request.machine.as_ref().map_or(0, |disk| disk.bytes);
    let used = engine.machine_disk_used(&view.record);
    let address = view.network.endpoints.iter().find_map(|endpoint| endpoint.ipv4);
    let cells = [
        ("Name", view.record.name.to_string()),
        ("ID", view.record.id.short().to_owned()),
        ("State", state(view)),
        ("CPUs", engine.machine_cpus(&view.record).to_string()),
        ("Memory", size::binary(request.resources.memory.unwrap_or(0))),
        ("Disk", format!("{} / {}", size::binary(used), size::binary(size))),
        ("Address", address.map(|(address, _)| address.to_string()).unwrap_or_default()),
    ];
    cells.into_iter().collect()
}
