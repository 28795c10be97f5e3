//! `import`.

use std::fs::File;
use std::io::Read;

use cata_engine::images::ImportRequest;
use cata_spec::{Platform, Reference};
use clap::Args;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Apply a Dockerfile instruction to the image (CMD, ENV, …)
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Say why in the image's history
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// What the archive was made for
    #[arg(long, value_name = "string", env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    platform: Option<String>,
    #[arg(required = true, value_name = "FILE")]
    file: String,
    #[arg(value_name = "REPOSITORY")]
    name: Option<String>,
}

impl Verb for Import {
    fn call(self, session: &Session) -> Outcome {
        if self.file.starts_with("http://") || self.file.starts_with("https://") {
            return Err(Failure::usage("import of a URL is not supported yet")
                .with_hint("download it and import the file"));
        }
        let reference = self.name.as_deref().map(Reference::parse).transpose();
        let platform = self.platform.as_deref().filter(|p| !p.is_empty()).map(Platform::parse).transpose();
        let request = ImportRequest {
            reference: reference.map_err(|e| Failure::usage(e.to_string()))?,
            changes: self.change,
            message: self.message,
            platform: platform.map_err(|e| Failure::usage(e.to_string()))?,
        };
        let mut archive: Box<dyn Read + Send> = match self.file.as_str() {
            "-" => Box::new(std::io::stdin()),
            path => Box::new(File::open(path).map_err(|e| Failure::io(format!("open {path}"), &e))?),
        };
        let image = session.engine()?.image_import(&mut archive, &request)?;
        session::print_line(image.id.to_string())?;
        Ok(Exit::OK)
    }
}
