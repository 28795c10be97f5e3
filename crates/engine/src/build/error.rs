//! What can go wrong in a build.

use crate::error::{Error, Foreign, Kind};

/// A fault in a Dockerfile or a step of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}{}", excerpt.as_ref().map(|excerpt| format!("\n{}", excerpt.trim_end())).unwrap_or_default())]
pub struct BuildError {
    /// What is wrong.
    pub message: String,
    /// The line with a caret.
    pub excerpt: Option<String>,
    /// A way out.
    pub hint: Option<String>,
    /// For exit codes.
    pub kind: Kind,
    /// Another step failed first: not worth telling.
    pub cancelled: bool,
}

impl BuildError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { message: message.into(), excerpt: None, hint: None, kind, cancelled: false }
    }

    pub(crate) fn cancelled() -> Self {
        Self { cancelled: true, ..Self::new(Kind::Internal, "cancelled") }
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = self.hint.or(hint);
        self
    }

    /// With the line of the Dockerfile, unless it has one.
    pub(crate) fn on(mut self, name: &str, text: &str, line: usize) -> Self {
        if self.excerpt.is_none() && line > 0 {
            self.excerpt = Some(cata_build::error::excerpt(name, text, line, None));
        }
        self
    }

    /// A fault of the language.
    pub(crate) fn language(error: &cata_build::Error, name: &str, text: &str) -> Self {
        let excerpt = Some(error.excerpt(name, text)).filter(|excerpt| !excerpt.is_empty());
        let message = match error.line {
            0 => error.message.clone(),
            line => format!("dockerfile parse error on line {line}: {}", error.message),
        };
        Self { message, excerpt, hint: error.hint.clone(), kind: Kind::InvalidArgument, cancelled: false }
    }

    pub(crate) fn io(action: &str, path: &std::path::Path, source: impl Into<std::io::Error>) -> Self {
        let source: std::io::Error = source.into();
        Self::from(Error::File { op: "use", path: path.to_owned(), source }).action(action)
    }

    fn action(mut self, action: &str) -> Self {
        self.message = self.message.replacen("use", action, 1);
        self
    }
}

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        if let Error::Build(error) = error {
            return *error;
        }
        let mut built = Self::new(error.kind(), crate::error::chain(&error));
        built.hint = error.hint();
        built
    }
}

impl From<cata_image::Error> for BuildError {
    fn from(error: cata_image::Error) -> Self {
        crate::image::image_error(error).into()
    }
}

impl From<cata_image::StoreError> for BuildError {
    fn from(error: cata_image::StoreError) -> Self {
        cata_image::Error::from(error).into()
    }
}

impl From<cata_build::context::ContextError> for BuildError {
    fn from(error: cata_build::context::ContextError) -> Self {
        use cata_build::context::ContextError;
        let kind = match &error {
            ContextError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Kind::Denied
            }
            ContextError::Io { .. } => Kind::Internal,
            _ => Kind::InvalidArgument,
        };
        let message = Foreign::new(kind, None, &error).to_string();
        Self::new(kind, message).hint(error.hint())
    }
}
