//! What a COPY takes from a directory: which files, and their digest.
//!
//! A context is a stranger's: paths are resolved beneath its root, links within it are never followed out of
//! it, and what is neither file, directory nor link is refused. Digests of files that have not changed since
//! they were last read (by size, times and inode) are taken from a [`StatCache`].

mod digest;
mod select;
mod stat_cache;

pub use select::{Entry, EntryKind, How, Root, Selection, select, select_without_digests};
pub use stat_cache::StatCache;

use std::io;

/// Why files cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Nothing is there.
    #[error("\"/{path}\": not found")]
    NotFound {
        /// As written.
        path: String,
        /// Whether `.dockerignore` leaves it out.
        ignored: bool,
    },
    /// Something that cannot be copied.
    #[error("\"/{path}\" is {what}, which cannot be copied from a build context")]
    Unsupported {
        /// Where.
        path: String,
        /// `a device`.
        what: &'static str,
    },
    /// The system's answer.
    #[error("cannot read \"/{path}\"")]
    Io {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ContextError {
    fn io(path: &str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), source: source.into() }
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { ignored: true, .. } => {
                Some(".dockerignore leaves it out; a line with `!` takes it in again".to_owned())
            }
            Self::NotFound { path, .. } if path.starts_with("../") => {
                Some("nothing outside of the build context can be copied".to_owned())
            }
            Self::NotFound { .. } => {
                Some("paths are relative to the build context, the last argument of `cata build`".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
