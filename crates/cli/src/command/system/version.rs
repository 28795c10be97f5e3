//! `version`.

use clap::Args;
use serde_json::{Value, json};

use crate::render::template::Format;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Print with "json" or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Verb for Version {
    fn call(self, _: &Session) -> Outcome {
        let document = document();
        match self.format.as_deref().unwrap_or_default() {
            "" => session::print(text(&document))?,
            "json" => session::print_line(document.to_string())?,
            template => session::print_line(Format::parse(template)?.fill(&document)?)?,
        }
        Ok(Exit::OK)
    }
}

/// The line of `--version`.
pub(crate) fn line() -> String {
    format!("Catamaran version {}", env!("CARGO_PKG_VERSION"))
}

/// Docker's shape: there is no server, so both halves are this program.
fn document() -> Value {
    let half = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": architecture(),
    });
    json!({ "Client": half, "Server": half })
}

/// Go's name of the machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn text(document: &Value) -> String {
    let field = |key: &str| document["Client"][key].as_str().unwrap_or_default().to_owned();
    format!(
        "Catamaran:\n Version:      {}\n OS/Arch:      {}/{}\n",
        field("Version"),
        field("Os"),
        field("Arch")
    )
}
