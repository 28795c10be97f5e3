//! `serve`: Docker's Engine API on a socket. Another program does it, in this process's place: what it is made of is
//! not read at the start of every other command.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use crate::parse;
use crate::render::error::Failure;
use crate::session::{Globals, Session};
use crate::tree::{Outcome, Verb};

/// The program.
const PROGRAM: &str = "cata-serve";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen (unix:///run/catamaran.sock); a socket of LISTEN_FDS goes before it
    #[arg(short = 'H', long, visible_alias = "host", value_name = "string")]
    socket: Option<String>,
    /// Group that may connect besides root
    #[arg(short = 'G', long, value_name = "string")]
    group: Option<String>,
    /// End when nobody has been connected for so long, as 10m (never)
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    idle: Option<Duration>,
}

impl Verb for Serve {
    fn call(self, session: &Session) -> Outcome {
        let program = session.engine()?.companion(PROGRAM)?;
        let paths = session.paths();
        let usual = crate::rootless::paths(&Globals::default()).unwrap_or_default().state;
        let mut command = Command::new(&program);
        command.arg("--root").arg(&paths.root).arg("--state").arg(&paths.state);
        command.arg("--config").arg(&paths.config);
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        match given(&self.socket) {
            Some(socket) => command.arg("--socket").arg(socket),
            // Beside the usual state: /run/catamaran.sock, or a user's own.
            None => command.arg("--socket").arg(usual.with_extension("sock")),
        };
        if let Some(group) = given(&self.group) {
            command.arg("--group").arg(group);
        }
        if let Some(idle) = self.idle {
            // One that ends before it can be connected to serves nobody.
            command.arg("--idle").arg(idle.as_secs().max(1).to_string());
        }
        Err(Failure::io(format!("start {}", program.display()), &command.exec()))
    }
}
