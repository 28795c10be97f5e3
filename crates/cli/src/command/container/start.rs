//! `start`: containers that were created or have ended; `-a` stays with one of them.

use cata_engine::container::StartOptions;
use cata_engine::{Streams, Timing};
use clap::Args;

use super::run::stay;
use crate::command::each_at_once;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::terminal::{self, detach::Keys};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Connect standard output and error, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from a container with a terminal (ctrl-p,ctrl-q)
    #[arg(long, value_name = "string", value_parser = terminal::detach::parse)]
    detach_keys: Option<Keys>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Start {
    fn call(self, session: &Session) -> Outcome {
        if !self.attach && !self.interactive {
            let engine = session.engine()?;
            let start = |name: &str| -> Result<(), Failure> {
                let record = engine.find(name)?;
                if let Some(started) =
                    engine.start(&record, StartOptions::default(), &mut Timing::default())?
                {
                    started.withheld.iter().for_each(|what| session::note(format!("WARNING: {what}")));
                }
                Ok(())
            };
            return each_at_once(&self.containers, start, |name, ()| session::print_line(name));
        }
        let [name] = self.containers.as_slice() else {
            return Err(Failure::usage("you cannot start and attach multiple containers at once"));
        };
        let engine = session.engine()?;
        let record = engine.find(name)?;
        let tty = record.request.tty;
        let stdin = self.interactive && record.request.open_stdin;
        terminal::check_tty(stdin, tty)?;
        let streams = Streams { stdin: stdin || tty, stdout: true, stderr: !tty };
        let keys = self.detach_keys.unwrap_or_else(Keys::docker);
        let window = if tty { terminal::window() } else { None };
        let options = StartOptions { attach: Some(streams), window };
        match engine.start(&record, options, &mut Timing::default())? {
            Some(started) => stay(session, &record, started, stdin, &keys, true),
            None => Ok(Exit::OK),
        }
    }
}
