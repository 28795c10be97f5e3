//! `logs`: what the containers of services wrote, each line with its container's name.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use cata_engine::Engine;
use cata_engine::container::logs::{Entry, LogOptions};
use clap::Args;

use super::existing;
use super::project::load;
use crate::command::container::logs::{Range, leave_with_the_reader};
use crate::render::error::Failure;
use crate::render::time;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    range: Range,
    /// Print no names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Print without colours
    #[arg(long)]
    no_color: bool,
    /// Only this container of a service
    #[arg(long, value_name = "int")]
    index: Option<u32>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Logs {
    fn call(self, session: &Session) -> Outcome {
        let options = self.range.options()?;
        let loaded = load(session, &self.services)?;
        let engine = session.engine()?;
        let mut found = existing::of(engine, &loaded, &self.services)?;
        found.retain(|one| self.index.is_none_or(|index| one.number == index));
        let names: Vec<String> = found.iter().map(|one| one.short(&loaded.project.name)).collect();
        let printer = Printer::new(&names, self.no_log_prefix, self.no_color, self.range.timestamps);
        if self.range.follow {
            leave_with_the_reader();
        }
        let mut first = Ok(());
        std::thread::scope(|scope| {
            let printer = &printer;
            let threads: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(index, one)| scope.spawn(move || printer.print(engine, one.id(), index, options)))
                .collect();
            for thread in threads {
                let outcome = thread.join().unwrap_or_else(|_| Err(Failure::client("internal error")));
                if first.is_ok() {
                    first = outcome;
                }
            }
        });
        first.map(|()| Exit::OK)
    }
}

/// This moment, as logs count.
pub(super) fn moment_now() -> i64 {
    i64::try_from(time::now()).unwrap_or(i64::MAX)
}

/// Writes whole lines of several containers to standard output.
pub(super) struct Printer {
    prefixes: Vec<String>,
    timestamps: bool,
    output: Mutex<()>,
}

/// As Docker's clients go through them.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

impl Printer {
    pub(super) fn new(names: &[String], no_prefix: bool, no_colour: bool, timestamps: bool) -> Self {
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !no_colour && !plain && std::io::stdout().is_terminal();
        let prefix = |(name, colour_code): (&String, &u8)| match (no_prefix, colour) {
            (true, _) => String::new(),
            (false, true) => format!("\x1b[{colour_code}m{name:width$}  | \x1b[0m"),
            (false, false) => format!("{name:width$}  | "),
        };
        let prefixes = names.iter().zip(COLOURS.iter().cycle()).map(prefix).collect();
        Self { prefixes, timestamps, output: Mutex::new(()) }
    }

    /// All that a container has written since a moment, and what it will, until its end.
    pub(super) fn follow(&self, engine: &Engine, id: &str, index: usize, since: i64) {
        let options = LogOptions { since: Some(since), follow: true, ..LogOptions::default() };
        if let Err(failure) = self.print(engine, id, index, options) {
            failure.report();
        }
    }

    fn print(&self, engine: &Engine, id: &str, index: usize, options: LogOptions<'_>) -> Result<(), Failure> {
        let mut failed = None;
        let mut line: Vec<u8> = Vec::new();
        engine.logs(id, options, &mut |entry| {
            if line.is_empty() {
                line.extend_from_slice(self.head(index, entry).as_bytes());
            }
            line.extend_from_slice(&entry.bytes);
            if !entry.bytes.ends_with(b"\n") {
                return true;
            }
            let outcome = self.write(&line);
            line.clear();
            failed = outcome.err();
            failed.is_none()
        })?;
        if failed.is_none() && !line.is_empty() {
            line.push(b'\n');
            failed = self.write(&line).err();
        }
        failed.map_or(Ok(()), |error| Err(Failure::output(error)))
    }

    fn head(&self, index: usize, entry: &Entry) -> String {
        let prefix = self.prefixes.get(index).map(String::as_str).unwrap_or_default();
        if !self.timestamps {
            return prefix.to_owned();
        }
        let nanos = u64::try_from(entry.time.unix_nanos()).unwrap_or_default();
        format!("{prefix}{} ", time::rfc3339(nanos))
    }

    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let _alone = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = std::io::stdout().lock();
        output.write_all(line)?;
        output.flush()
    }
}
