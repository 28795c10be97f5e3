//! PAX extended headers: `length key=value\n` records.

use crate::error::LayerError;

/// Extended headers and long names larger than this are refused.
pub(crate) const LIMIT: u64 = 1 << 20;

/// What the records say that matters for making an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// Seconds and nanoseconds.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Sparse,
}

/// GNU's sparse records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Version 1.0: the map stands in front of the content.
    pub(crate) map_in_content: bool,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// Versions 0.0 and 0.1.
    pub(crate) map: Vec<(u64, u64)>,
    offset: Option<u64>,
    major: Option<u64>,
}

impl Records {
    /// Reads the content of an extended header; an empty value takes an earlier one back.
    pub(crate) fn read(&mut self, mut content: &[u8]) -> Result<(), LayerError> {
        while !content.is_empty() {
            let (record, rest) = split(content).ok_or(LayerError::NotTar("malformed PAX record"))?;
            let at =
                record.iter().position(|b| *b == b'=').ok_or(LayerError::NotTar("PAX record without `=`"))?;
            self.take(&record[..at], &record[at + 1..])?;
            content = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        let no_nul = |value: Option<Vec<u8>>| match value {
            Some(text) if text.contains(&0) => Err(LayerError::NotTar("PAX record with a NUL in a name")),
            other => Ok(other),
        };
        match key {
            b"path" => self.path = no_nul(bytes())?,
            b"linkpath" => self.link = no_nul(bytes())?,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, |v| u32::try_from(decimal(v)?).ok())?,
            b"gid" => self.gid = optional(value, |v| u32::try_from(decimal(v)?).ok())?,
            b"mtime" => self.mtime = optional(value, time)?,
            b"GNU.sparse.name" => self.sparse.name = no_nul(bytes())?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = optional(value, decimal)?,
            b"GNU.sparse.major" => self.sparse.major = optional(value, decimal)?,
            b"GNU.sparse.minor" => self.sparse.map_in_content = self.sparse.major == Some(1) && value == b"0",
            b"GNU.sparse.map" => {
                self.sparse.map = map(value).ok_or(LayerError::NotTar("malformed sparse map"))?;
            }
            b"GNU.sparse.offset" => self.sparse.offset = optional(value, decimal)?,
            b"GNU.sparse.numbytes" => {
                let (Some(offset), Some(length)) = (self.sparse.offset.take(), decimal(value)) else {
                    return Err(LayerError::NotTar("malformed sparse map"));
                };
                self.sparse.map.push((offset, length));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err(LayerError::NotTar("extended attribute without a name"));
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Takes the first record, without its length and newline.
fn split(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = content.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&content[..space])?).ok()?;
    if length <= space + 1 || length > content.len() {
        return None;
    }
    let (record, rest) = content.split_at(length);
    Some((record[space + 1..].strip_suffix(b"\n")?, rest))
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, LayerError> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value).map(Some).ok_or(LayerError::NotTar("PAX record with a malformed number"))
}

/// Unsigned decimal digits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanos = 0u32;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// `offset,length,offset,length,…`
fn map(text: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Option<Vec<u64>> = text.split(|b| *b == b',').map(decimal).collect();
    let numbers = numbers?;
    (numbers.len() % 2 == 0).then(|| numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Records, LayerError> {
        let mut records = Records::default();
        records.read(text).map(|()| records)
    }

    #[test]
    fn records_are_read() {
        let records =
            read(b"9 path=a\n11 size=42\n22 mtime=1700000000.5\n28 SCHILY.xattr.user.a=b=\nc\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a"[..]));
        assert_eq!((records.size, records.mtime), (Some(42), Some((1_700_000_000, 500_000_000))));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"b=\nc".to_vec())]);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.2.3"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"x"[..], b"5 a=", b"99 path=a\n", b"0 a=b\n", b"7 patha\n", b"10 size=-1\n", b"9 path=a\0"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
