//! `machine shell`: beside the machine's containers, as its first process sees it.

use clap::Args;

use super::pass;
use crate::session::Session;
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Shell {
    // Everything after the machine belongs to the command, dashes or not.
    #[arg(required = true, trailing_var_arg = true, value_name = "MACHINE COMMAND")]
    machine_and_command: Vec<String>,
}

impl Verb for Shell {
    fn call(self, session: &Session) -> Outcome {
        let mut words = self.machine_and_command.into_iter();
        let machine = words.next().unwrap_or_default();
        let mut command: Vec<String> = words.collect();
        if command.is_empty() {
            command = ["/bin/sh", "-l"].map(str::to_owned).to_vec();
        }
        pass::run(session, &machine, command)
    }
}
