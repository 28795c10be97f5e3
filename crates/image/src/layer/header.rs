//! One 512-byte tar header: ustar, GNU and the old form.

use crate::error::LayerError;

/// A tar block.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    SymLink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// GNU's old sparse form.
    Sparse,
    /// Records for the next entry.
    PaxLocal,
    /// Records for all that follow.
    PaxGlobal,
    /// GNU: the next entry's name.
    LongName,
    /// GNU: the next entry's link target.
    LongLink,
}

/// A header's fields as they stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) link: Vec<u8>,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Parses a header; `None` is the zero block that ends an archive.
pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Option<Header>, LayerError> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    verify_checksum(block)?;
    let mut name = text(&block[..100]).to_vec();
    let malformed = |reason| LayerError::malformed(text(&block[..100]), reason);
    if &block[257..263] == b"ustar\0" {
        let prefix = text(&block[345..500]);
        if !prefix.is_empty() {
            name = [prefix, b"/", name.as_slice()].concat();
        }
    }
    let field = |from: usize, to: usize, reason| number(&block[from..to]).ok_or_else(|| malformed(reason));
    let small = |from, to, reason| u32::try_from(field(from, to, reason)?).map_err(|_| malformed(reason));
    let kind = match block[156] {
        // Before ustar a directory was told by its name alone.
        b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::SymLink,
        b'3' => Kind::CharacterDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => Kind::Sparse,
        b'x' => Kind::PaxLocal,
        b'g' => Kind::PaxGlobal,
        b'L' => Kind::LongName,
        b'K' => Kind::LongLink,
        _ => return Err(malformed("unknown type of entry")),
    };
    let device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let size =
        u64::try_from(field(124, 136, "size is not a number")?).map_err(|_| malformed("negative size"))?;
    Ok(Some(Header {
        kind,
        mode: small(100, 108, "mode is not a number")? & 0o7777,
        uid: small(108, 116, "user id out of range")?,
        gid: small(116, 124, "group id out of range")?,
        // These have no content, whatever their size says.
        size: if has_content(kind) { size } else { 0 },
        mtime: field(136, 148, "time is not a number")?,
        link: text(&block[157..257]).to_vec(),
        major: if device { small(329, 337, "device number out of range")? } else { 0 },
        minor: if device { small(337, 345, "device number out of range")? } else { 0 },
        name,
    }))
}

fn has_content(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::HardLink
            | Kind::SymLink
            | Kind::CharacterDevice
            | Kind::BlockDevice
            | Kind::Directory
            | Kind::Fifo
    )
}

/// The sum of all bytes, the checksum's own counted as spaces; some old writers summed signed bytes.
fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), LayerError> {
    let told = number(&block[148..156]).ok_or(LayerError::NotTar("header without a checksum"))?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(i8::from_ne_bytes([byte]));
    }
    if told == unsigned || told == signed {
        Ok(())
    } else {
        Err(LayerError::NotTar("header with a wrong checksum"))
    }
}

/// Up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// Octal digits, or GNU's base-256 when the first bit is set. An empty field is 0.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement over the whole field without its first bit; bit 6 is the sign.
        let mut value: i128 =
            if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first | 0x80) - 256 };
        for byte in &field[1..] {
            value = value.checked_mul(256)? + i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let digits = text(field).trim_ascii();
    let mut value = 0i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 24));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"9"), None);
        assert_eq!(number(b"0x12"), None);
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_block_without_checksum_is_not_tar() {
        let mut block = [b'a'; BLOCK];
        assert!(matches!(parse(&block), Err(LayerError::NotTar(_))));
        block = [0; BLOCK];
        assert!(matches!(parse(&block), Ok(None)));
    }
}
