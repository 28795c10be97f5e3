//! `machine start`.

use clap::Args;

use crate::command::each_at_once;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,
}

impl Verb for Start {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each_at_once(
            &self.machines,
            |name| Ok(engine.machine_start(name)?),
            |name, started| {
                if !started {
                    session::note(format!("{name} runs already"));
                }
                session::print_line(name)
            },
        )
    }
}
