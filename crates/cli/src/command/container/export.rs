//! `export`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::Args;

use crate::render::error::Failure;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Write to a file, instead of standard output
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

impl Verb for Export {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let Some(path) = &self.output else {
            if std::io::stdout().is_terminal() {
                return Err(Failure::usage("cowardly refusing to save to a terminal")
                    .with_hint("write to a file with -o, or into a pipe"));
            }
            let mut output = BufWriter::with_capacity(1 << 20, std::io::stdout());
            engine.export(&self.container, &mut output).map_err(Failure::streamed)?;
            output.flush().map_err(Failure::output)?;
            return Ok(Exit::OK);
        };
        // Asked first: a container that is not there must not cost the file that is.
        let _ = engine.find(&self.container)?;
        let file = File::create(path).map_err(|e| Failure::io(format!("open {}", path.display()), &e))?;
        let mut output = BufWriter::with_capacity(1 << 20, file);
        let done = engine
            .export(&self.container, &mut output)
            .map_err(Failure::from)
            .and_then(|_| output.flush().map_err(|e| Failure::io(format!("write {}", path.display()), &e)));
        if done.is_err() {
            // Half an archive is none. A device or pipe that was named stays.
            if path.is_file() {
                let _ = std::fs::remove_file(path);
            }
        }
        done?;
        Ok(Exit::OK)
    }
}
