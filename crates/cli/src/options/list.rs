//! The flags of listings.

use clap::Args;

// `--format`, `--no-trunc`, `-q` and `-f` of every `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    /// Show only what fits the conditions (name=value)
    #[arg(short, long, value_name = "filter")]
    pub(crate) filter: Vec<String>,
    /// Print with "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Do not shorten columns
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print only ids or names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
