//! The compressions that kernels and modules come in, told by their first bytes.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

use crate::error::{Error, Result};

/// What nothing here unpacks to: a kernel is some tens of megabytes.
pub const LIMIT: u64 = 1 << 30;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `gzip`.
    Gzip,
    /// `xz`.
    Xz,
    /// `zstd`.
    Zstd,
    /// `lz4` in the legacy framing that the kernel uses.
    Lz4,
    /// Known, but not read: its name.
    Other(&'static str),
}

impl Format {
    /// From the first bytes; `None`: not compressed in a way that kernels know.
    #[must_use]
    pub fn detect(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0x5d, 0, 0, ..] => Self::Other("lzma"),
            [0x89, b'L', b'Z', b'O', ..] => Self::Other("lzo"),
            _ => return None,
        })
    }
}

/// Unpacks `data`, which `what` names in errors. What follows the compressed stream is left alone.
///
/// # Errors
/// [`Error::Compression`] for a format that is not read, [`Error::Damaged`] otherwise.
pub fn unpack(format: Format, data: &[u8], what: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).min(1 << 26));
    let read = match format {
        Format::Gzip => copy(GzDecoder::new(data), &mut out),
        Format::Xz => copy(XzReader::new(data, false), &mut out),
        Format::Zstd => zstd::stream::read::Decoder::with_buffer(data)
            .and_then(|decoder| copy(decoder.single_frame(), &mut out)),
        Format::Lz4 => lz4(data, &mut out),
        Format::Other(format) => return Err(Error::Compression { what: what.to_owned(), format }),
    };
    read.map_err(|error| Error::Damaged { what: what.to_owned(), why: error.to_string() })?;
    Ok(out)
}

/// `data` as it is, or unpacked.
///
/// # Errors
/// As [`unpack`].
pub fn plain(data: Vec<u8>, what: &str) -> Result<Vec<u8>> {
    match Format::detect(&data) {
        Some(format) => unpack(format, &data, what),
        None => Ok(data),
    }
}

fn copy(from: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    let read = from.take(LIMIT).read_to_end(out)?;
    if read as u64 == LIMIT {
        Err(io::Error::other("it unpacks to more than a kernel can be"))
    } else {
        Ok(())
    }
}

/// The legacy framing: a magic number, then blocks of a length and so many bytes, each 8 MiB unpacked.
fn lz4(data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    const BLOCK: usize = 8 << 20;
    let mut rest = data.get(4..).unwrap_or_default();
    let mut block = vec![0; BLOCK];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        // The kernel's own end: what follows is the unpacked size, or nothing.
        let Some(packed) = after.get(..length).filter(|_| length != 0) else { break };
        let size = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        out.extend_from_slice(&block[..size]);
        rest = &after[length..];
        if size < BLOCK {
            break;
        }
        if out.len() as u64 >= LIMIT {
            return Err(io::Error::other("it unpacks to more than a kernel can be"));
        }
    }
    if out.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// What a program of the system makes of `data`; `None` where it is not installed.
    fn through(program: &str, args: &[&str], data: &[u8]) -> Option<Vec<u8>> {
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut input = child.stdin.take()?;
        let data = data.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&data));
        let output = child.wait_with_output().ok()?;
        writer.join().ok()?.ok()?;
        output.status.success().then_some(output.stdout)
    }

    #[test]
    fn each_format_of_kernels_is_unpacked_and_a_cut_one_is_an_error() {
        let data: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let programs: [(&str, &[&str]); 4] = [
            ("gzip", &["-c"]),
            ("xz", &["-c", "--check=crc32", "--x86", "--lzma2=dict=1MiB"]),
            ("zstd", &["-c"]),
            ("lz4", &["-l", "-c"]),
        ];
        for (program, args) in programs {
            let Some(packed) = through(program, args, &data) else { continue };
            let format = Format::detect(&packed).unwrap();
            assert!(unpack(format, &packed, "it").unwrap() == data, "{program}");
            let cut = unpack(format, &packed[..packed.len() / 2], "it");
            assert!(cut.is_err() || program == "lz4", "{program}");
        }
    }

    #[test]
    fn unpack_unknown_format_names_it() {
        let error = unpack(Format::detect(b"BZh9").unwrap(), b"BZh9", "vmlinuz").unwrap_err();
        assert_eq!(error.to_string(), "vmlinuz is compressed with bzip2, which is not supported");
    }
}
