//! How layers say that something of a lower layer is gone.

use crate::error::LayerError;

/// What the last part of an entry's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning<'n> {
    /// An ordinary entry.
    Plain,
    /// `.wh.NAME`: NAME of the lower layers is gone.
    Gone(&'n [u8]),
    /// `.wh..wh..opq`: everything of the lower layers in this directory is gone.
    Opaque,
    /// Other `.wh..wh.…`: book-keeping of a file system of long ago.
    Ignored,
}

/// Reads the last part of an entry's name.
pub(crate) fn read(name: &[u8]) -> Result<Meaning<'_>, LayerError> {
    let Some(rest) = name.strip_prefix(b".wh.") else { return Ok(Meaning::Plain) };
    match rest {
        b".wh..opq" => Ok(Meaning::Opaque),
        b"" | b"." | b".." => Err(LayerError::malformed(name, "a whiteout of nothing")),
        _ if rest.starts_with(b".wh.") => Ok(Meaning::Ignored),
        _ => Ok(Meaning::Gone(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(read(b"a").unwrap(), Meaning::Plain);
        assert_eq!(read(b".wh").unwrap(), Meaning::Plain);
        assert_eq!(read(b".wh.a").unwrap(), Meaning::Gone(b"a"));
        assert_eq!(read(b".wh..a").unwrap(), Meaning::Gone(b".a"));
        assert_eq!(read(b".wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(read(b".wh..wh.plnk").unwrap(), Meaning::Ignored);
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(read(bad).is_err());
        }
    }
}
