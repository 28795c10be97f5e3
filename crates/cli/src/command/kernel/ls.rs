//! `kernel ls`.

use cata_engine::kernel::{Record, Source};
use clap::Args;

use crate::options::list::ListOptions;
use crate::parse::boolean;
use crate::parse::filter::Filters;
use crate::render::listing::{self, Kind, Row};
use crate::render::{size, time};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.Name}}\t{{.Architecture}}\t{{.Source}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Default}}",
    quiet: "{{.Name}}",
    headings: &[("Name", "KERNEL"), ("Architecture", "ARCH"), ("CreatedSince", "CREATED")],
};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    list: ListOptions,
}

impl Verb for List {
    fn call(self, session: &Session) -> Outcome {
        let filters = Filters::parse(&self.list.filter, &["arch", "default", "name"])?;
        let now = time::now();
        let rows: Vec<Row> = session
            .engine()?
            .kernel_list()?
            .iter()
            .filter(|(kernel, default)| {
                filters.any("name", |name| kernel.name.contains(name))
                    && filters.any("arch", |arch| kernel.arch == arch)
                    && filters.any("default", |text| boolean::parse(text) == Ok(*default))
            })
            .map(|(kernel, default)| cells(kernel, *default, now))
            .collect();
        listing::print(&KIND, &rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(Exit::OK)
    }
}

fn cells(kernel: &Record, default: bool, now: u64) -> Row {
    let source = match &kernel.source {
        Source::Package { name, version } => format!("{name} {version}"),
        Source::File { path } => path.display().to_string(),
        Source::Image { reference, .. } => format!("image {reference}"),
    };
    let created = u64::try_from(kernel.created.unix_nanos()).unwrap_or_default();
    let cells = [
        ("Name", kernel.name.clone()),
        ("Architecture", kernel.arch.clone()),
        ("Release", kernel.release.clone()),
        ("Source", source),
        ("CreatedSince", time::ago(created, now)),
        ("CreatedAt", time::rfc3339(created)),
        ("Size", size::decimal(kernel.size)),
        ("Digest", kernel.digest.to_string()),
        ("Default", if default { "*".to_owned() } else { String::new() }),
    ];
    cells.into_iter().collect()
}
