//! `ps`, `container ls`.

use clap::Args;
use jiff::tz::TimeZone;

use crate::parse::filter::Filters;
use crate::render::error::Failure;
use crate::render::{listing, time};
use crate::row::container::{FILTERS, KIND, KIND_WITH_SIZES, Selection, cells, from_view, select};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Show only what fits the conditions (name=value)
    #[arg(short, long, value_name = "filter")]
    filter: Vec<String>,
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show the n containers created last, in any state (-1: all)
    #[arg(short = 'n', long, value_name = "int", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the container created last, in any state
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten columns
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show sizes of containers
    #[arg(short, long)]
    size: bool,
}

impl Verb for Ps {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.filter, &FILTERS)?;
        let last = if self.latest { Some(1) } else { self.last.and_then(|n| usize::try_from(n).ok()) };
        let engine = session.engine()?;
        // Machines have a listing of their own.
        let mut views = engine.views()?;
        views.retain(|view| view.record.request.machine.is_none());
        let containers = views.iter().map(from_view).collect();
        let selection = Selection { filters: &filters, all: self.all || self.last.is_some(), last };
        let mut containers = select(containers, &selection).map_err(|e| Failure::usage(e.to_string()))?;
        let sized = self.size || self.format.as_deref().is_some_and(|format| format.contains(".Size"));
        if sized && !self.quiet {
            for container in &mut containers {
                let record = views.iter().map(|view| &view.record).find(|r| r.id.as_str() == container.id);
                // Removed since it was listed: nothing is left to be measured.
                container.sizes = record.and_then(|record| engine.sizes(record).ok());
            }
        }
        let (now, zone) = (time::now(), TimeZone::system());
        let rows: Vec<_> = containers.iter().map(|c| cells(c, now, &zone, !self.no_trunc)).collect();
        let kind = if self.size { &KIND_WITH_SIZES } else { &KIND };
        listing::print(kind, &rows, self.format.as_deref(), self.quiet)?;
        Ok(Exit::OK)
    }
}
