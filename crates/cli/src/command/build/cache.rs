//! `builder du` and `builder prune`.

use std::time::SystemTime;

use cata_engine::build::{CacheEntry, CacheFilter, Keep, PruneRequest};
use clap::Args;

use crate::parse;
use crate::render::error::Failure;
use crate::render::{size, time};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Du {
    /// Print all that is known of each entry
    #[arg(long)]
    verbose: bool,
    /// Only these (until=24h, id=, type=regular|exec.cachemount|source, description=, shared=, private=, inuse=)
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
}

impl Verb for Du {
    fn call(self, session: &Session) -> Outcome {
        let filter = filter(&self.filter)?;
        let mut entries = session.engine()?.build_cache()?;
        let now = SystemTime::now();
        entries.retain(|entry| filter.takes(entry, now));
        if self.verbose {
            entries.iter().try_for_each(|entry| print(entry, now))?;
        } else {
            session::print_line(format!("{:<26}{:<12}{:<10}DESCRIPTION", "ID", "RECLAIMABLE", "SIZE"))?;
            for entry in &entries {
                let description: String = entry.description.chars().take(60).collect();
                session::print_line(format!(
                    "{:<26}{:<12}{:<10}{description}",
                    entry.id,
                    !entry.shared,
                    size::decimal(entry.size)
                ))?;
            }
        }
        let total: u64 = entries.iter().map(|entry| entry.size).sum();
        let shared: u64 = entries.iter().filter(|entry| entry.shared).map(|entry| entry.size).sum();
        session::print_line(format!("Shared:       {}", size::decimal(shared)))?;
        session::print_line(format!("Reclaimable:  {}", size::decimal(total - shared)))?;
        session::print_line(format!("Total:        {}", size::decimal(total)))?;
        Ok(Exit::OK)
    }
}

/// An entry as a paragraph.
fn print(entry: &CacheEntry, now: SystemTime) -> Result<(), Failure> {
    let used = now.duration_since(entry.used).unwrap_or_default();
    let lines = [
        ("ID:", entry.id.clone()),
        ("Created at:", entry.created.clone().unwrap_or_else(|| "-".to_owned())),
        ("Last used:", format!("{} ago", time::span(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX)))),
        ("Mutable:", (entry.kind == "exec.cachemount").to_string()),
        ("Reclaimable:", (!entry.shared).to_string()),
        ("Shared:", entry.shared.to_string()),
        ("Size:", size::decimal(entry.size)),
        ("Type:", entry.kind.to_owned()),
        ("Description:", entry.description.clone()),
    ];
    for (name, value) in lines {
        session::print_line(format!("{name:<14}{value}"))?;
    }
    session::print_line("")
}

/// `--filter`.
fn filter(texts: &[String]) -> Result<CacheFilter, Failure> {
    let mut filter = CacheFilter::default();
    for text in texts {
        let wrong = || {
            Failure::flag(format!("invalid filter '{text}'"))
                .with_hint("until=24h, id=, type=, description=, shared=, private= or inuse=")
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let truth = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong()),
        };
        match name {
            "until" | "unused-for" => {
                filter.until = Some(std::time::Duration::from_nanos(parse::duration::nanos(value)?));
            }
            "id" => filter.ids.push(value.to_owned()),
            "type" => filter.kinds.push(value.to_owned()),
            // BuildKit writes it with a tilde: holds.
            "description" | "description~" => filter.descriptions.push(value.to_owned()),
            "shared" => filter.shared = Some(truth()?),
            "private" => filter.shared = Some(!truth()?),
            "inuse" => filter.in_use = Some(truth()?),
            _ => return Err(wrong()),
        }
    }
    Ok(filter)
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove caches of RUN --mount=type=cache too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only these (until=24h, id=, type=regular|exec.cachemount|source, description=, shared=, private=, inuse=)
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Keep so much in any case
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary, alias = "keep-storage")]
    reserved_space: Option<u64>,
    /// Keep no more than this
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    max_used_space: Option<u64>,
    /// Remove until so much of the disk is free
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    min_free_space: Option<u64>,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let keep = Keep {
            reserved: self.reserved_space,
            max_used: self.max_used_space,
            min_free: self.min_free_space,
        };
        let request = PruneRequest { all: self.all, filter: filter(&self.filter)?, keep };
        let question = "This removes what builds keep. Continue? [y/N] ";
        if !self.force && !crate::command::prune::confirmed(question)? {
            return Err(Failure::usage("builder prune has been cancelled"));
        }
        let pruned = session.engine()?.build_prune(&request)?;
        for entry in &pruned.entries {
            session::print_line(format!("{:<26}{}", entry.id, size::decimal(entry.size)))?;
        }
        session::print_line(format!("Total reclaimed space: {}", size::decimal(pruned.freed)))?;
        Ok(Exit::OK)
    }
}
