//! `exec`: one more process in a container of a service; with a terminal where there is one.

use std::io::IsTerminal as _;

use clap::Args;

use super::existing;
use super::project::load;
use crate::command::container;
use crate::session::Session;
use crate::tree::{Outcome, Verb, typed};

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Leave the command running in the background
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable (NAME alone takes the caller's)
    #[arg(short, long, value_name = "list")]
    env: Vec<String>,
    /// Which container of the service
    #[arg(long, value_name = "int")]
    index: Option<u32>,
    /// Without a terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    /// Connect standard input (it is, unless --detach)
    #[arg(short, long)]
    interactive: bool,
    /// With a terminal (there is one, where the caller has one)
    #[arg(short, long)]
    tty: bool,
    /// Give the command (nearly) everything the host may do
    #[arg(long)]
    privileged: bool,
    /// User or uid, with an optional group (user[:group])
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    // Everything after the service belongs to the command, dashes or not.
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "SERVICE COMMAND")]
    service_and_command: Vec<String>,
}

/// Whether a process gets a terminal: the caller has one on both ends.
pub(super) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

impl Verb for Exec {
    fn call(self, session: &Session) -> Outcome {
        let mut words = self.service_and_command.into_iter();
        let service = words.next().unwrap_or_default();
        let loaded = load(session, std::slice::from_ref(&service))?;
        let found = existing::one(session.engine()?, &loaded, &service, self.index)?;
        let mut line: Vec<String> = Vec::new();
        if self.detach {
            line.push("--detach".to_owned());
        } else {
            line.push("--interactive".to_owned());
            let tty = !self.no_tty && (self.tty || has_terminal());
            line.extend(tty.then(|| "--tty".to_owned()));
        }
        line.extend(self.privileged.then(|| "--privileged".to_owned()));
        line.extend(self.env.iter().map(|text| format!("--env={text}")));
        line.extend(self.user.map(|text| format!("--user={text}")));
        line.extend(self.workdir.map(|text| format!("--workdir={text}")));
        line.push(found.name().to_owned());
        line.extend(words);
        typed::<container::exec::Exec>(&container::EXEC, line)?.call(session)
    }
}
