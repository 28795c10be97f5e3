//! `load`.

use std::fs::File;
use std::io::{IsTerminal as _, Read};

use clap::Args;

use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Read from this archive instead of standard input
    #[arg(short, long, value_name = "string")]
    input: Option<String>,
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Load {
    fn call(self, session: &Session) -> Outcome {
        let mut archive = open(self.input.as_deref())?;
        let screen = Screen::new(if self.quiet { To::Nowhere } else { To::Stdout });
        let loaded = session.engine()?.image_load(&mut archive, &screen)?;
        for image in &loaded {
            if image.names.is_empty() {
                session::print_line(format!("Loaded image ID: {}", image.id))?;
            }
            for name in &image.names {
                session::print_line(format!("Loaded image: {}", name.familiar()))?;
            }
        }
        Ok(Exit::OK)
    }
}

/// The archive: a file, or standard input if something is there.
fn open(path: Option<&str>) -> Result<Box<dyn Read + Send>, Failure> {
    match path.filter(|p| !p.is_empty()) {
        Some(path) => {
            let file = File::open(path).map_err(|e| Failure::io(format!("open {path}"), &e))?;
            Ok(Box::new(file))
        }
        None if std::io::stdin().is_terminal() => {
            Err(Failure::usage("requested load from stdin, but stdin is empty")
                .with_hint("name an archive with -i, or redirect one"))
        }
        None => Ok(Box::new(std::io::stdin())),
    }
}
