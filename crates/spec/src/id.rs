//! Typed identifiers: container ids, names and their prefixes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A container's id: 64 lower-case hexadecimal characters, as Docker prints it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a string is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hexadecimal characters.
    #[error("`{0}` is not a container id (64 hexadecimal characters)")]
    NotAnId(String),
    /// Docker's rule for names: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
    #[error("invalid name `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least")]
    NotAName(String),
}

impl ContainerId {
    /// Builds an id from 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Parses the full 64-character form.
    ///
    /// # Errors
    /// [`IdError::NotAnId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::NotAnId(text.to_owned()))
        }
    }

    /// The full id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters, as tables and host names show it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// A name given to a container, network or volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks Docker's rule for names.
    ///
    /// # Errors
    /// [`IdError::NotAName`] naming the offender.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() >= 2 && text.len() <= 255 && bytes.all(rest) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::NotAName(text.to_owned()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_parse_accepts_only_64_lower_hex() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(ContainerId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.short(), "abababababab");
        assert!(ContainerId::parse(&"A".repeat(64)).is_err());
        assert!(ContainerId::parse("abc").is_err());
    }

    #[test]
    fn name_parse_follows_dockers_rule() {
        for good in ["pg", "a.b-c_d", "0x"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "a/b", "a b", "..", &"x".repeat(256)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
