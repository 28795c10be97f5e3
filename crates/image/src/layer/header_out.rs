//! Tar headers as written: ustar, with PAX records for what does not fit into it.
//!
//! The same entry always gives the same bytes: records are in a fixed order, and nothing of the writing
//! process (time, user names) is in them.

use std::io::{self, Write};

use super::header::BLOCK;

/// What is said of one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'h> {
    /// Relative; of a directory with a slash at its end.
    pub(crate) path: &'h [u8],
    /// The type's letter in the header.
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of the content that follows.
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Target of a link.
    pub(crate) link: &'h [u8],
    /// Of a device.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: &'h [(Vec<u8>, Vec<u8>)],
    /// The file's size when the content is a GNU sparse map (PAX 1.0) and data.
    pub(crate) sparse: Option<u64>,
}

/// The largest number of 7 octal digits.
const SEVEN_DIGITS: u64 = 0o7_777_777;
/// The largest number of 11 octal digits.
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

/// Writes the header, with an extended one in front where needed.
pub(crate) fn write(to: &mut dyn Write, head: &Head<'_>) -> io::Result<()> {
    let records = records(head);
    if !records.is_empty() {
        let name = beneath(b"PaxHeaders.0/", head.path);
        to.write_all(&block(&name, b'x', records.len() as u64, &Head { mode: 0o644, ..plain(head) }))?;
        to.write_all(&records)?;
        pad(to, records.len() as u64)?;
    }
    let name =
        if head.sparse.is_some() { beneath(b"GNUSparseFile.0/", head.path) } else { head.path.to_vec() };
    to.write_all(&block(&name, head.kind, head.size, head))
}

/// Zeros up to the next block.
pub(crate) fn pad(to: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest == 0 { Ok(()) } else { to.write_all(&[0; BLOCK][rest..]) }
}

/// An extended header's own head: nothing of the entry is in it.
fn plain<'h>(head: &Head<'h>) -> Head<'h> {
    Head { uid: 0, gid: 0, mtime: (0, 0), link: b"", device: (0, 0), xattrs: &[], sparse: None, ..*head }
}

/// A short name in a made-up directory, for readers that do not know the records.
fn beneath(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut made = directory.to_vec();
    made.extend_from_slice(&name[..name.len().min(100 - directory.len())]);
    made
}

fn records(head: &Head<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    if let Some(size) = head.sparse {
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", head.path);
        record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
    }
    for (name, value) in head.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if u64::from(head.gid) > SEVEN_DIGITS {
        record(&mut records, b"gid", head.gid.to_string().as_bytes());
    }
    if head.link.len() > 100 {
        record(&mut records, b"linkpath", head.link);
    }
    if head.mtime.1 != 0 || head.mtime.0 < 0 || head.mtime.0.unsigned_abs() > ELEVEN_DIGITS {
        record(&mut records, b"mtime", time(head.mtime).as_bytes());
    }
    if head.path.len() > 100 && head.sparse.is_none() {
        record(&mut records, b"path", head.path);
    }
    if head.size > ELEVEN_DIGITS {
        record(&mut records, b"size", head.size.to_string().as_bytes());
    }
    if u64::from(head.uid) > SEVEN_DIGITS {
        record(&mut records, b"uid", head.uid.to_string().as_bytes());
    }
    records
}

/// `LENGTH key=value\n`, the length counting itself.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + bare.to_string().len();
    if length.to_string().len() > bare.to_string().len() {
        length = bare + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// Seconds with a fraction, as short as possible.
fn time((seconds, nanos): (i64, u32)) -> String {
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        // -1.25 is kept as -2 s and 750,000,000 ns.
        (true, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

fn block(name: &[u8], kind: u8, size: u64, head: &Head<'_>) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let name = &name[..name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], u64::from(head.mode & 0o7777));
    octal(&mut block[108..116], fitting(u64::from(head.uid), SEVEN_DIGITS));
    octal(&mut block[116..124], fitting(u64::from(head.gid), SEVEN_DIGITS));
    octal(&mut block[124..136], fitting(size, ELEVEN_DIGITS));
    octal(&mut block[136..148], fitting(u64::try_from(head.mtime.0).unwrap_or(0), ELEVEN_DIGITS));
    block[148..156].fill(b' ');
    block[156] = kind;
    let link = &head.link[..head.link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(kind, b'3' | b'4') {
        octal(&mut block[329..337], u64::from(head.device.0));
        octal(&mut block[337..345], u64::from(head.device.1));
    }
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// What a record tells instead is 0 in the header.
fn fitting(value: u64, most: u64) -> u64 {
    if value > most { 0 } else { value }
}

/// Octal digits with a NUL at the end.
fn octal(field: &mut [u8], mut value: u64) {
    let last = field.len() - 1;
    field[last] = 0;
    for digit in field[..last].iter_mut().rev() {
        *digit = b'0' + u8::try_from(value & 7).unwrap_or(0);
        value >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value in [1, 88, 89, 90, 91, 92, 980, 990, 991] {
            let mut bytes = Vec::new();
            record(&mut bytes, b"path", &vec![b'a'; value]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), bytes.len().to_string());
        }
    }

    #[test]
    fn times_are_as_short_as_they_can_be() {
        assert_eq!(time((5, 0)), "5");
        assert_eq!(time((5, 250_000_000)), "5.25");
        assert_eq!(time((-2, 750_000_000)), "-1.25");
        assert_eq!(time((-3, 0)), "-3");
    }
}
