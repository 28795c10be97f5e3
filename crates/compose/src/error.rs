//! What can be wrong with a project, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why there is no project.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not YAML, or more of it than is read.
    #[error("{place}: {why}")]
    Yaml {
        /// Where.
        place: Place,
        /// In words.
        why: String,
    },
    /// A key that the Compose specification does not have.
    #[error("{place}: unknown key {key}{}", did_you_mean(like.as_deref()))]
    Unknown {
        /// Where.
        place: Place,
        /// With those around it.
        key: String,
        /// What may have been meant.
        like: Option<String>,
    },
    /// What the specification has and this version does not.
    #[error("{place}: {what} is not supported yet")]
    Unsupported {
        /// Where.
        place: Place,
        /// The key, or its value.
        what: String,
    },
    /// A value of another kind.
    #[error("{place}: {key} must be {wanted}")]
    Wrong {
        /// Where.
        place: Place,
        /// With those around it.
        key: String,
        /// What it must be.
        wanted: String,
    },
    /// `${…}` that cannot be expanded.
    #[error("{place}: {why}")]
    Variable {
        /// Where.
        place: Place,
        /// In words.
        why: String,
    },
    /// A name that nothing has.
    #[error("{place}: service {service} refers to the {kind} {name}, which is not defined")]
    Undefined {
        /// Where.
        place: Place,
        /// Who refers to it.
        service: String,
        /// `volume`, `network`, `service` …
        kind: &'static str,
        /// To what.
        name: String,
    },
    /// Services that wait for each other.
    #[error("services depend on each other in a circle: {}", .0.join(" -> "))]
    Circle(Vec<String>),
    /// A service that was named and is not there.
    #[error("no such service: {0}")]
    NoService(String),
    /// A file that is not there.
    #[error("{place}: {}: {why}", path.display())]
    Read {
        /// Who names it.
        place: Place,
        /// The file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// A name that no project can have.
    #[error(
        "invalid project name \"{0}\": it must consist of lower case letters, digits, hyphens and underscores, and start with a letter or digit"
    )]
    Name(String),
    /// Nothing in it.
    #[error("{0}: there are no services")]
    Empty(String),
}

fn did_you_mean(like: Option<&str>) -> String {
    like.map_or_else(String::new, |like| format!(" (did you mean {like}?)"))
}

/// What every step returns.
pub type Result<T> = std::result::Result<T, Error>;
