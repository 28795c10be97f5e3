//! `volume prune`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove volumes with a name too, not only anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Verb for Prune {
    fn call(self, session: &Session) -> Outcome {
        let which = if self.all { "all volumes" } else { "anonymous volumes" };
        if !self.force
            && !confirmed(&format!("This removes {which} that no container uses. Continue? [y/N] "))?
        {
            return Err(Failure::usage("volume prune has been cancelled"));
        }
        let removed = session.engine()?.volume_prune(self.all)?;
        if !removed.is_empty() {
            session::print_line("Deleted Volumes:")?;
        }
        for name in &removed {
            session::print_line(name.as_str())?;
        }
        Ok(Exit::OK)
    }
}

/// Asks on a terminal; elsewhere nobody can say yes.
pub(crate) fn confirmed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    // A question that cannot be shown is answered no.
    if std::io::stderr().write_all(question.as_bytes()).is_err() {
        return Ok(false);
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("read the answer", &e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
