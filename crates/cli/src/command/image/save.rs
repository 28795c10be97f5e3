//! `save`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::render::error::Failure;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "string")]
    output: Option<String>,
    /// Save only the images for this platform
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for Save {
    fn call(self, session: &Session) -> Outcome {
        let engine = session.engine()?;
        let platform = self.platform.as_deref();
        let Some(path) = self.output.filter(|p| !p.is_empty()) else {
            if std::io::stdout().is_terminal() {
                return Err(Failure::usage("cowardly refusing to save to a terminal")
                    .with_hint("use the -o flag, or redirect the output"));
            }
            let mut output = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            engine.image_save(&self.images, platform, &mut output).map_err(Failure::streamed)?;
            output.flush().map_err(Failure::output)?;
            return Ok(Exit::OK);
        };
        // Beside the target and renamed: a save that fails leaves what was there before.
        let part = part(Path::new(&path));
        let file = File::create(&part).map_err(|e| Failure::io(format!("create {}", part.display()), &e))?;
        let mut output = BufWriter::with_capacity(1 << 20, file);
        let saved = engine.image_save(&self.images, platform, &mut output).map_err(Failure::from);
        let saved = saved.and_then(|()| output.flush().map_err(|e| Failure::io(format!("write {path}"), &e)));
        let saved = saved.and_then(|()| {
            std::fs::rename(&part, &path).map_err(|e| Failure::io(format!("write {path}"), &e))
        });
        if saved.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&part);
        }
        saved.map(|()| Exit::OK)
    }
}

fn part(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}
