//! A container's log: Docker's json-file lines in `<container>/log/container.log`, rotated to `.1`, `.2`, …
//!
//! One entry a line: `{"log":"text\n","stream":"stdout","time":"…"}`. A line of output longer than 16 KiB is
//! several entries of which only the last ends in a newline. Output that is not UTF-8 is kept exactly: `log`
//! holds the readable form that Docker's tools expect, and `raw` the bytes in hexadecimal.

mod read;
mod write;

use std::path::{Path, PathBuf};

pub use read::{Entry, LogError, Options, read};
pub use write::{Input, Writer};

/// Longest piece of output in one entry.
pub const LONGEST: usize = 16 * 1024;

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As the log spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The directory of a container's log files.
#[must_use]
pub fn directory(container_dir: &Path) -> PathBuf {
    container_dir.join("log")
}

/// File number `n` of a log: 0 is the live one.
#[must_use]
pub fn file(dir: &Path, n: u32) -> PathBuf {
    if n == 0 { dir.join("container.log") } else { dir.join(format!("container.log.{n}")) }
}

#[cfg(test)]
mod tests;
