//! `stats`: what containers use, once or again and again.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use cata_engine::Engine;
use cata_engine::container::stats::Usage;
use cata_engine::record::Record;
use clap::Args;

use crate::render::error::Failure;
use crate::render::listing::{self, Kind, Row};
use crate::render::size;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

/// Between two looks: what a container used in it is its share of the processors.
const INTERVAL: Duration = Duration::from_secs(1);

const KIND: Kind = Kind {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    headings: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    shown: Shown,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// What is shown, and how: of some containers as of those of a project.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Look once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

impl Verb for Stats {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let mut before = self.look(engine)?;
        loop {
            std::thread::sleep(INTERVAL);
            let now = self.look(engine)?;
            let earlier: HashMap<&str, &Usage> =
                before.iter().map(|(record, usage)| (record.id.as_str(), usage)).collect();
            let rows: Vec<Row> = now
                .iter()
                .map(|(record, usage)| {
                    row(record, earlier.get(record.id.as_str()).copied(), usage, !self.shown.no_trunc)
                })
                .collect();
            let text = listing::text(&KIND, &rows, self.shown.format.as_deref(), false)?;
            let clear = !self.shown.no_stream && std::io::stdout().is_terminal();
            session::print(if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
            if self.shown.no_stream {
                return Ok(Exit::OK);
            }
            before = now;
        }
    }
}

impl Stats {
    /// Of these containers.
    pub(crate) fn of(containers: Vec<String>, shown: Shown) -> Self {
        Self { shown, containers }
    }

    /// The containers asked for, or those that run now, with what they use.
    fn look(&self, engine: &Engine) -> Result<Vec<(Record, Usage)>, Failure> {
        let records = if self.containers.is_empty() {
            engine.records_newest_first()?
        } else {
            self.containers.iter().map(|name| engine.find(name)).collect::<Result<_, _>>()?
        };
        let mut looked = Vec::with_capacity(records.len());
        for record in records {
            let usage = engine.usage(&record)?;
            let runs = usage.stats.cpu.is_some() || usage.memory_limit > 0;
            if runs || self.shown.all || !self.containers.is_empty() {
                looked.push((record, usage));
            }
        }
        Ok(looked)
    }
}

/// PURE: the cells of a line.
fn row(record: &Record, before: Option<&Usage>, now: &Usage, truncate: bool) -> Row {
    let id = if truncate { record.id.short() } else { record.id.as_str() };
    let memory = now.stats.memory.unwrap_or_default();
    // What the kernel can take back at once is not what the container needs.
    let used = memory.usage.saturating_sub(memory.inactive_file);
    let io = now.stats.io.unwrap_or_default();
    let cells = [
        ("Container", id.to_owned()),
        ("ID", id.to_owned()),
        ("Name", record.name.to_string()),
        ("CPUPerc", percent(before.map_or(0.0, |before| processors(before, now)))),
        ("MemUsage", format!("{} / {}", size::binary(used), size::binary(now.memory_limit))),
        ("MemPerc", percent(ratio(used, now.memory_limit))),
        ("NetIO", format!("{} / {}", size::decimal(now.network.0), size::decimal(now.network.1))),
        ("BlockIO", format!("{} / {}", size::decimal(io.read_bytes), size::decimal(io.written_bytes))),
        ("PIDs", now.stats.pids.map_or(0, |pids| pids.current).to_string()),
    ];
    cells.into_iter().collect()
}

/// How many processors were kept busy between two looks.
#[expect(clippy::cast_precision_loss, reason = "percentages for people")]
fn processors(before: &Usage, now: &Usage) -> f64 {
    let (Some(earlier), Some(later)) = (before.stats.cpu, now.stats.cpu) else { return 0.0 };
    // A container that was started anew has counters that start anew.
    let used = later.usage.saturating_sub(earlier.usage) as f64 / 1e9;
    let passed = now.at.saturating_duration_since(before.at).as_secs_f64();
    if passed > 0.0 { used / passed } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "percentages for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(ratio: f64) -> String {
    format!("{:.2}%", ratio * 100.0)
}
