//! What went wrong, in one line, and the exit code.

use std::fmt;
use std::io;
use std::path::Path;

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Error {
    text: String,
    /// What the program exits with.
    pub(crate) code: u8,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A result of this program.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(text)
    }

    /// With what runc's `exec` ends when the process did not start.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// For `map_err`: what was done to which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::new(format!("{action} {}: {source}", path.display()))
    }

    /// The same for a bare error number.
    pub(crate) fn errno(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::new(format!("{action} {}: {}", path.display(), io::Error::from(source)))
    }

    /// An error with all its sources, in the order of cause.
    pub(crate) fn chain(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(text)
    }
}
