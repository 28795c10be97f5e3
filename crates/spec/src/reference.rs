//! Image references with Docker's normalisation: `postgres` is `docker.io/library/postgres:latest`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry meant when a reference names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag meant when a reference has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// A full reference to an image: registry, repository, and tag or digest or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference. Texts are Docker's where Docker has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The grammar does not allow it.
    #[error("invalid reference format: `{0}`")]
    Format(String),
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// Longer than 255 characters.
    #[error("repository name must not be more than 255 characters: `{0}`")]
    TooLong(String),
    /// 64 hexadecimal characters are an id, never a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Something after `@` that is not a digest.
    #[error(transparent)]
    Digest(#[from] crate::digest::DigestError),
}

impl Reference {
    /// Parses what a user typed and normalises it; without tag and digest the tag becomes `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the offender.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse_untagged(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// As [`Reference::parse`], but keeps a missing tag missing.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the offender.
    pub fn parse_untagged(text: &str) -> Result<Self, ReferenceError> {
        let format = || ReferenceError::Format(text.to_owned());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before the last slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || name.is_empty() {
            return Err(format());
        }
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(ReferenceError::LooksLikeId(name.to_owned()));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(format());
        }
        if repository.split('/').any(|component| !is_component(component)) {
            let lower = repository.to_ascii_lowercase();
            return Err(if lower != repository && lower.split('/').all(is_component) {
                ReferenceError::UpperCase(repository)
            } else {
                format()
            });
        }
        if registry.len() + 1 + repository.len() > 255 {
            return Err(ReferenceError::TooLong(name.to_owned()));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// The registry: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository on the registry: `library/postgres`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if any.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if any.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository in full: `docker.io/library/postgres`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The repository as Docker shows it: `postgres`, `localhost:5000/a/b`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            // `library/a/b` is a real repository of three components.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            // Without `docker.io/` in front the first component would be taken for a registry.
            _ if names_registry(self.repository.split('/').next().unwrap_or_default()) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as Docker shows it: `postgres:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// What the registry's manifest endpoint is asked for: the digest if given, else the tag.
    #[must_use]
    pub fn manifest_selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same repository with this tag and no digest; `None` if it is no tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Option<Self> {
        is_tag(tag).then(|| Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository by digest alone.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse_untagged(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Docker's rule: the first component is a registry if it has a dot, a colon or upper case, or is `localhost`.
fn names_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if names_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if matches!(registry, "index.docker.io" | "registry-1.docker.io") {
        DEFAULT_REGISTRY
    } else {
        registry
    };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    (registry.to_owned(), repository)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(word) && text.len() <= 128 && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[a-z0-9]+` runs, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if bytes.is_empty() || !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, after)) => (address, after.strip_prefix(':').or(Some(""))),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if text.starts_with('[') {
        return host.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_is_dockers() {
        for (typed, full, familiar) in [
            ("postgres", "docker.io/library/postgres:latest", "postgres:latest"),
            ("postgres:15", "docker.io/library/postgres:15", "postgres:15"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("ghcr.io/a/b_c__d--e.f", "ghcr.io/a/b_c__d--e.f:latest", "ghcr.io/a/b_c__d--e.f:latest"),
            ("UP/x", "UP/x:latest", "UP/x:latest"),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), full, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
        }
    }

    #[test]
    fn digest_keeps_the_tag_away_from_latest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let reference = Reference::parse(&format!("x@{digest}")).unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.manifest_selector(), digest);
        let both = Reference::parse(&format!("x:1@{digest}")).unwrap();
        assert_eq!((both.tag(), both.manifest_selector()), (Some("1"), digest));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for bad in [
            "",
            ":",
            "/",
            "a:",
            "a//b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "x:-t",
            "x@sha256:00",
            "a b",
            "host:/x",
            "h:99999/x",
            "[::1/x",
            "../x",
            "x/..",
            ".x",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Reference::parse("docker.io/Foo"), Err(ReferenceError::UpperCase("library/Foo".into())));
        assert!(matches!(Reference::parse(&"a".repeat(64)), Err(ReferenceError::LooksLikeId(_))));
        assert!(matches!(Reference::parse(&"a".repeat(250)), Err(ReferenceError::TooLong(_))));
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_parsed_again(
            registry in "(|localhost/|docker\\.io/|[a-z]{1,5}\\.[a-z]{2,3}/|127\\.0\\.0\\.1:[1-9][0-9]{0,3}/)",
            repository in "[a-z0-9]{1,4}([._-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,2}",
            tag in "(|:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8})",
            digest in "(|@sha256:[0-9a-f]{64})",
        ) {
            // Without a registry, a first component with a dot would be one.
            let first = repository.split_once('/').map_or("", |(first, _)| first);
            proptest::prop_assume!(!registry.is_empty() || !first.contains('.'));
            let typed = format!("{registry}{repository}{tag}{digest}");
            let reference = Reference::parse(&typed).unwrap();
            assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }

        #[test]
        fn any_text_is_read_without_harm(text in "[ -~é]{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
