//! `machine stop`.

use clap::Args;

use cata_engine::container::life::Stopped;

use crate::command::each_at_once;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds that its containers have together before the machine is killed (120)
    #[arg(short, long, value_name = "int", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,
}

impl Verb for Stop {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        each_at_once(
            &self.machines,
            |name| {
                engine.machine_find(name)?;
                Ok(engine.stop(name, None, self.timeout)?)
            },
            |name, stopped| {
                match stopped {
                    Stopped::Ignored(_) => session::note(format!("WARNING: machine {name} had to be killed")),
                    Stopped::Ended(code) if code != 0 => {
                        session::note(format!(
                            "WARNING: machine {name} ended with {code}: see `cata logs {name}`"
                        ));
                    }
                    Stopped::Already | Stopped::Ended(_) => {}
                }
                session::print_line(name)
            },
        )
    }
}
