//! `system check`: whether what is kept is whole.

use clap::Args;

use cata_engine::check::{CheckReport, CheckRequest, Finding, Outcome as Became};

use crate::render::size;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only look whether everything is there; read no image's content
    #[arg(short, long)]
    quick: bool,
    /// Mend what can be mended without losing anything
    #[arg(short, long)]
    repair: bool,
}

impl Verb for Check {
    fn call(self, session: &Session) -> Outcome {
        let request = CheckRequest { quick: self.quick, repair: self.repair };
        let report = session.engine()?.system_check(request)?;
        session::print(text(&report))?;
        let left = report.findings.iter().any(|found| matches!(found.outcome, Became::Left(_)));
        Ok(if left { Exit(1) } else { Exit::OK })
    }
}

/// PURE: a line or two for each finding, and one of what was looked at.
fn text(report: &CheckReport) -> String {
    let mut text: String = report.findings.iter().map(finding).collect();
    text.push_str(&format!(
        "{} blobs ({}), {} layers ({} files), {} containers, {} volumes, {} networks: ",
        report.blobs,
        size::decimal(report.bytes),
        report.layers,
        report.files,
        report.containers,
        report.volumes,
        report.networks
    ));
    let all = report.findings.len();
    let left = report.findings.iter().filter(|found| matches!(found.outcome, Became::Left(_))).count();
    text.push_str(&match (all - left, left) {
        (0, 0) => "all sound\n".to_owned(),
        (repaired, 0) => format!("{repaired} repaired, all sound now\n"),
        (0, left) => format!("{left} damaged\n"),
        (repaired, left) => format!("{repaired} repaired, {left} damaged\n"),
    });
    text
}

fn finding(found: &Finding) -> String {
    match &found.outcome {
        Became::Repaired(how) => format!("repaired: {} ({how})\n", found.what),
        Became::Left(hint) => format!("damaged: {}\n  hint: {hint}\n", found.what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_how_it_stands() {
        let found = |what: &str, outcome| Finding { what: what.to_owned(), outcome };
        let mut report = CheckReport { blobs: 3, bytes: 2_000_000, ..CheckReport::default() };
        let is = "3 blobs (2MB), 0 layers (0 files), 0 containers, 0 volumes, 0 networks: ";
        assert_eq!(text(&report), format!("{is}all sound\n"));
        report.findings.push(found("layer x: /etc is missing", Became::Repaired("unpacked again")));
        let first = "repaired: layer x: /etc is missing (unpacked again)\n";
        assert_eq!(text(&report), format!("{first}{is}1 repaired, all sound now\n"));
        report.findings.push(found("blob y is missing", Became::Left("`cata pull z`".to_owned())));
        let second = "damaged: blob y is missing\n  hint: `cata pull z`\n";
        assert_eq!(text(&report), format!("{first}{second}{is}1 repaired, 1 damaged\n"));
    }
}
