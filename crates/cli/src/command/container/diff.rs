//! `diff`.

use cata_engine::container::changes::ChangeKind;
use clap::Args;

use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

impl Verb for Diff {
    fn call(self, session: &Session) -> Outcome {
        let mut text = String::new();
        for change in session.engine()?.changes(&self.container)? {
            let kind = match change.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Changed => 'C',
                ChangeKind::Deleted => 'D',
            };
            text.push_str(&format!("{kind} {}\n", change.path.display()));
        }
        session::print(text)?;
        Ok(Exit::OK)
    }
}
