//! What the `prune` commands share: flags, the question, how they say what went.

use std::fmt::Display;
use std::io::{BufRead as _, Write as _};

use cata_engine::images::Removed;
use cata_engine::prune::PruneFilter;
use clap::Args;

use crate::parse::{self, filter::Filters};
use crate::render::error::Failure;
use crate::render::{size, time};

#[derive(Debug, Args)]
pub(crate) struct PruneOptions {
    /// Remove only what fits the conditions (until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE])
    #[arg(long, value_name = "filter")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

impl PruneOptions {
    /// The filter; `more` are names that only this command knows.
    pub(crate) fn read(&self, more: &[&str]) -> Result<(PruneFilter, Filters), Failure> {
        Ok(parse::prune::filter(&self.filter, more, time::now())?)
    }

    /// Asks, unless that was asked not to be done.
    pub(crate) fn confirm(&self, command: &str, what: &str) -> Result<(), Failure> {
        if self.force || confirmed(&format!("{what} Continue? [y/N] "))? {
            return Ok(());
        }
        Err(Failure::usage(format!("{command} has been cancelled")).with_hint("-f does it without asking"))
    }
}

/// Asks, whoever answers: `yes | cata system prune` is a way to say yes, and the end of the input one to say no.
pub(crate) fn confirmed(question: &str) -> Result<bool, Failure> {
    // A question that cannot be shown is answered no.
    if std::io::stderr().write_all(question.as_bytes()).is_err() {
        return Ok(false);
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("read the answer", &e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A heading with a line for each thing; nothing without things.
pub(crate) fn section<T: Display>(heading: &str, things: &[T]) -> String {
    if things.is_empty() {
        return String::new();
    }
    let lines: String = things.iter().map(|thing| format!("{thing}\n")).collect();
    format!("{heading}:\n{lines}\n")
}

/// As `rmi` says it.
pub(crate) fn removed_images(removed: &[Removed]) -> Vec<String> {
    let line = |one: &Removed| match one {
        Removed::Untagged(name) => format!("untagged: {}", name.familiar()),
        Removed::Deleted(digest) => format!("deleted: {digest}"),
    };
    removed.iter().map(line).collect()
}

/// Docker's last line.
pub(crate) fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}", size::decimal(bytes))
}
