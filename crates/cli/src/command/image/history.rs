//! `history`.

use cata_engine::images::HistoryLine;
use clap::Args;
use jiff::tz::TimeZone;

use crate::parse;
use crate::render::listing::{self, Kind, Row};
use crate::render::{size, table, time};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

const KIND: Kind = Kind {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print sizes and dates for people
    #[arg(short = 'H', long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", action = clap::ArgAction::Set, value_parser = parse::boolean::parse)]
    human: bool,
    /// Do not shorten columns
    #[arg(long)]
    no_trunc: bool,
    /// Of several platforms, this one
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "IMAGE")]
    image: String,
}

impl Verb for History {
    fn call(self, session: &Session) -> Outcome {
        let now = time::now();
        let lines = session.engine()?.image_history_for(&self.image, self.platform.as_deref())?;
        let rows: Vec<Row> = lines.iter().map(|line| cells(line, now, self.human, !self.no_trunc)).collect();
        listing::print(&KIND, &rows, self.format.as_deref(), self.quiet)?;
        Ok(Exit::OK)
    }
}

fn cells(line: &HistoryLine, now: u64, human: bool, truncate: bool) -> Row {
    let id = match (&line.id, truncate) {
        (Some(id), true) => id.short(),
        (Some(id), false) => id.to_string(),
        (None, _) => "<missing>".to_owned(),
    };
    let created =
        line.step.created.as_deref().and_then(|text| parse::time::parse(text, now, &TimeZone::UTC).ok());
    let since = created.map(|then| time::ago(then, now)).unwrap_or_default();
    let at = created.map(|then| time::short(then, &TimeZone::system())).unwrap_or_default();
    let by = line.step.created_by.clone().unwrap_or_default().replace('\t', " ");
    let cells = [
        ("ID", id),
        ("CreatedSince", if human { since } else { at.clone() }),
        ("CreatedAt", at),
        ("CreatedBy", if truncate { table::ellipsis(&by, 45) } else { by }),
        ("Size", if human { size::decimal(line.size) } else { line.size.to_string() }),
        ("Comment", line.step.comment.clone().unwrap_or_default()),
    ];
    cells.into_iter().collect()
}
