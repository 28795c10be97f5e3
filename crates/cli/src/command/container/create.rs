//! `create`, and what `run` shares with it.

use cata_engine::Timing;
use cata_engine::container::Created;
use cata_engine::request::CreateRequest;
use clap::Args;

use crate::options::convert::{Surroundings, Use, request};
use crate::options::create::CreateOptions;
use crate::parse::{ParseError, Parsed};
use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    options: CreateOptions,
    // Everything after the image belongs to the container, dashes or not.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    image_and_command: Vec<String>,
}

impl Verb for Create {
    fn call(self, session: &Session) -> Outcome {
        let cidfile = CidFile::claim(self.options.life.cidfile.as_deref())?;
        let quiet = self.options.life.quiet;
        let request = convert(self.options, self.image_and_command, Use::Create)?;
        let created = create(session, request, quiet, &mut Timing::default())?;
        cidfile.write(created.record.id.as_str())?;
        session::print_line(created.record.id.as_str())?;
        Ok(Exit::OK)
    }
}

/// A request of the words of a line behind `create`.
pub(crate) fn request_of(words: Vec<String>, using: Use) -> Result<CreateRequest, Failure> {
    let create: Create = crate::tree::typed(&super::CREATE, words)?;
    convert(create.options, create.image_and_command, using)
}

/// Flags to a request, with the caller's real surroundings.
pub(crate) fn convert(
    options: CreateOptions,
    words: Vec<String>,
    using: Use,
) -> Result<CreateRequest, Failure> {
    let current_dir = std::env::current_dir().map_err(|e| Failure::io("find the working directory", &e))?;
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let around =
        Surroundings { current_dir: &current_dir.to_string_lossy(), variable: &variable, read: &read_file };
    Ok(request(options, words, using, &around)?)
}

/// A file that a flag names.
pub(crate) fn read_file(path: &str) -> Parsed<String> {
    std::fs::read_to_string(path)
        .map_err(|e| ParseError::new(Failure::io(format!("open {path}"), &e).message().to_owned()))
}

/// Creates, saying what the engine warns of.
pub(crate) fn create(
    session: &Session,
    request: CreateRequest,
    quiet: bool,
    timing: &mut Timing,
) -> Result<Created, Failure> {
    let screen = Screen::new(if quiet { To::Nowhere } else { To::Stderr });
    let created = session.engine()?.create(request, &screen, timing)?;
    for warning in &created.warnings {
        session::note(format!("WARNING: {warning}"));
    }
    Ok(created)
}

/// `--cidfile`: made before the container is, so that two cannot share it; gone again if it stays empty.
pub(crate) struct CidFile(Option<String>);

impl CidFile {
    /// Refuses a file that exists.
    pub(crate) fn claim(path: Option<&str>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|p| !p.is_empty()) else { return Ok(Self(None)) };
        match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => Ok(Self(Some(path.to_owned()))),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::flag(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ))),
            Err(e) => {
                Err(Failure::flag(Failure::io(format!("create the container ID file {path}"), &e).message()))
            }
        }
    }

    /// Writes the id; from then on the file stays.
    pub(crate) fn write(mut self, id: &str) -> Result<(), Failure> {
        match self.0.take() {
            Some(path) => std::fs::write(&path, id)
                .map_err(|e| Failure::io(format!("write the container ID file {path}"), &e)),
            None => Ok(()),
        }
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nothing was created: an empty file would only be in the way.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CidFile;

    #[test]
    fn cidfile_is_claimed_once_and_vanishes_when_unused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cid");
        let text = path.to_str().unwrap();
        let claimed = CidFile::claim(Some(text)).unwrap();
        assert!(CidFile::claim(Some(text)).is_err());
        drop(claimed);
        assert!(!path.exists());
        CidFile::claim(Some(text)).unwrap().write("abc").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        let failure = CidFile::claim(Some(text)).err().unwrap();
        assert!(failure.message().starts_with("container ID file found"));
    }
}
