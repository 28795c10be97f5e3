//! `kernel import`.

use std::path::PathBuf;

use cata_engine::kernel::ImportRequest;
use clap::Args;

use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Take drivers from this directory (/lib/modules/RELEASE) where they are not built in
    #[arg(long, value_name = "dir")]
    modules: Option<PathBuf>,
    /// Call it so (its release by default)
    #[arg(long, value_name = "string")]
    name: Option<String>,
    #[arg(required = true, value_name = "FILE")]
    file: PathBuf,
}

impl Verb for Import {
    fn call(self, session: &Session) -> Outcome {
        let request = ImportRequest { file: self.file, modules: self.modules, name: self.name };
        super::tell(&session.engine()?.kernel_import(&request)?)?;
        Ok(Exit::OK)
    }
}
