//! `builder du` and `builder prune`.

use cata_engine::build::PruneRequest;
use clap::Args;

use crate::parse;
use crate::render::error::Failure;
use crate::render::size;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Du {
    /// Print what each entry is
    #[arg(long)]
    verbose: bool,
}

impl Verb for Du {
    fn call(self, session: &Session) -> Outcome {
        let entries = session.engine()?.build_cache()?;
        session::print_line(format!("{:<26}{:<12}{:<10}DESCRIPTION", "ID", "RECLAIMABLE", "SIZE"))?;
        let mut total = 0;
        let mut reclaimable = 0;
        for entry in &entries {
            total += entry.size;
            reclaimable += if entry.shared { 0 } else { entry.size };
            let width = if self.verbose { usize::MAX } else { 60 };
            let description: String = entry.description.chars().take(width).collect();
            session::print_line(format!(
                "{:<26}{:<12}{:<10}{description}",
                entry.id,
                !entry.shared,
                size::decimal(entry.size)
            ))?;
        }
        session::print_line(format!("Shared:       {}", size::decimal(total - reclaimable)))?;
        session::print_line(format!("Reclaimable:  {}", size::decimal(reclaimable)))?;
        session::print_line(format!("Total:        {}", size::decimal(total)))?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove caches of RUN --mount=type=cache too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what was not used for so long (until=24h)
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Keep so much
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary, alias = "max-used-space")]
    keep_storage: Option<u64>,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let mut request = PruneRequest { all: self.all, until: None, keep: self.keep_storage };
        for filter in &self.filter {
            let Some(("until", value)) = filter.split_once('=') else {
                return Err(Failure::flag(format!("invalid filter '{filter}'")).with_hint("until=24h"));
            };
            request.until = Some(std::time::Duration::from_nanos(parse::duration::nanos(value)?));
        }
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
