//! `ls`: the projects there are, by the labels of containers.

use std::collections::BTreeMap;

use cata_compose::words::PROJECT;
use cata_engine::container::inspect::status_word;
use clap::Args;

use crate::render::listing::{self, Kind, Row};
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Show those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Print with "table", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

const KIND: Kind = Kind {
    table: "{{.Name}}\t{{.Status}}\t{{.ConfigFiles}}",
    quiet: "{{.Name}}",
    headings: &[("Name", "NAME"), ("Status", "STATUS"), ("ConfigFiles", "CONFIG FILES")],
};

impl Verb for Ls {
    fn call(self, session: &Session) -> Outcome {
        let mut projects: BTreeMap<String, (BTreeMap<&'static str, usize>, String)> = BTreeMap::new();
        for view in session.engine()?.views()? {
            let labels = &view.record.config.labels;
            let Some(name) = labels.get(PROJECT) else { continue };
            let (states, files) = projects.entry(name.clone()).or_default();
            *states.entry(status_word(view.status.status)).or_default() += 1;
            if let Some(listed) = labels.get("com.docker.compose.project.config_files") {
                files.clone_from(listed);
            }
        }
        let mut rows = Vec::new();
        for (name, (states, files)) in projects {
            if !self.all && !states.contains_key("running") {
                continue;
            }
            let states: Vec<String> =
                states.iter().map(|(state, count)| format!("{state}({count})")).collect();
            let cells = [("Name", name), ("Status", states.join(", ")), ("ConfigFiles", files)];
            rows.push(cells.into_iter().collect::<Row>());
        }
        listing::print(&KIND, &rows, self.format.as_deref(), self.quiet)?;
        Ok(Exit::OK)
    }
}
