//! The journal of what happened: `<state>/events/`, one line an event, written by whoever did it and read by
//! whoever asks. There is no process between the two.
//!
//! A writer opens the file, appends one line with one write, and closes it: no lock, no sync, nobody to wait
//! for. Each record begins with a newline too, so that what a killed writer left of a line spoils only that one.
//! The file that has grown beyond [`MOST`] is renamed to [`BEFORE`] by one of its writers, whoever holds its lock;
//! what was [`BEFORE`] is forgotten. A writer that opened the file just before may still append to it there.

mod read;
mod told;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;

pub use read::{Query, read};
pub(crate) use told::told;

/// The directory's name in the state directory.
pub const DIRECTORY: &str = "events";
/// The file that is written.
pub const LIVE: &str = "journal";
/// The file that was written before it.
pub const BEFORE: &str = "journal.1";
/// Bytes after which a file is renamed.
pub const MOST: u64 = 1 << 20;
/// Bytes of a record; one with more loses its attributes but for these.
const LONGEST: usize = 64 * 1024;
/// What is kept of the attributes of a record that is too long.
const KEPT: [&str; 6] = ["name", "image", "container", "exitCode", "signal", "execID"];

/// What something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// What builds keep.
    Builder,
}

impl Subject {
    /// As Docker writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Builder => "builder",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: i64,
    /// To what kind of thing.
    pub subject: Subject,
    /// What, in Docker's words.
    pub action: String,
    /// To which.
    pub id: String,
    /// What is worth knowing of it.
    pub attributes: BTreeMap<String, String>,
}

impl Entry {
    /// Something that happens now.
    #[must_use]
    pub fn now(
        subject: Subject,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) -> Self {
        Self { at: Stamp::now().unix_nanos(), subject, action: action.into(), id: id.into(), attributes }
    }
}

/// What a supervisor needs to tell its container's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Where to: `<state>/events/`.
    pub journal: PathBuf,
    /// What is said with every event of the container.
    pub attributes: BTreeMap<String, String>,
    /// What ends with the container: told in this order, each with its own moment.
    pub endings: Vec<Entry>,
}

/// Where a state directory's journal is.
#[must_use]
pub fn directory(state: &Path) -> PathBuf {
    state.join(DIRECTORY)
}

/// Appends an event. It cannot fail: that something cannot be told is no reason not to do it.
pub fn write(directory: &Path, entry: &Entry) {
    write::append(directory, entry, MOST);
}

#[cfg(test)]
mod tests;
