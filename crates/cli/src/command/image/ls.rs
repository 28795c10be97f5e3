//! `images`, `image ls`.

use clap::Args;
use jiff::tz::TimeZone;

use crate::options::list::ListOptions;
use crate::parse::filter::Filters;
use crate::render::error::Failure;
use crate::render::{listing, time};
use crate::row::image::{FILTERS, KIND, KIND_WITH_DIGESTS, Selection, cells, from_image, select};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct List {
    // There are no intermediate images, so all are shown anyway.
    /// Show all images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    list: ListOptions,
    #[arg(value_name = "REPOSITORY")]
    repository: Option<String>,
}

impl Verb for List {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.list.filter, &FILTERS)?;
        let images = session.engine()?.image_list()?.iter().map(from_image).collect();
        let selection = Selection { filters: &filters, repository: self.repository.as_deref() };
        let images = select(images, &selection).map_err(|e| Failure::usage(e.to_string()))?;
        let (now, zone) = (time::now(), TimeZone::system());
        let rows: Vec<_> = images.iter().flat_map(|i| cells(i, now, &zone, !self.list.no_trunc)).collect();
        let kind = if self.digests { &KIND_WITH_DIGESTS } else { &KIND };
        listing::print(kind, &rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(Exit::OK)
    }
}
