//! `attach`: our streams on those of a running container.

use cata_engine::Streams;
use clap::Args;
use std::os::fd::AsFd as _;

use super::run::{exit, forwarder, link};
use crate::session::Session;
use crate::terminal::detach::Keys;
use crate::terminal::{self, Manners, Parting};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that detach from a container with a terminal (ctrl-p,ctrl-q)
    #[arg(long, value_name = "string", value_parser = terminal::detach::parse)]
    detach_keys: Option<Keys>,
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "true", action = clap::ArgAction::Set, value_parser = crate::parse::boolean::parse)]
    sig_proxy: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

impl Verb for Attach {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let record = engine.find(&self.container)?;
        let tty = record.request.tty;
        let stdin = !self.no_stdin && record.request.open_stdin;
        terminal::check_tty(stdin, tty)?;
        let streams = Streams { stdin: stdin || tty, stdout: true, stderr: !tty };
        let (attached, waiter) = engine.attach(&self.container, streams)?;
        let keys = self.detach_keys.unwrap_or_else(Keys::docker);
        let forward = self.sig_proxy.then(|| forwarder(session, record.id.as_str()));
        if terminal::converse(link(attached, stdin)?, Manners { keys: &keys, forward }, waiter.as_fd())?
            == Parting::Detached
        {
            return Ok(Exit::OK);
        }
        Ok(exit(waiter.finish()?.code))
    }
}
