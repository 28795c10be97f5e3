//! Writing a tar stream of regular files and directories.

use std::io::{self, Write};

use crate::layer::header::BLOCK;

/// Writes entries one after the other.
pub(crate) struct Writer<'w> {
    to: &'w mut dyn Write,
}

impl<'w> Writer<'w> {
    pub(crate) fn new(to: &'w mut dyn Write) -> Self {
        Self { to }
    }

    /// A file that is in memory.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.header(name, b'0', 0o644, content.len() as u64)?;
        self.to.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// A file that is read from `from`, which must have exactly `size` bytes.
    pub(crate) fn stream(&mut self, name: &str, size: u64, from: &mut dyn io::Read) -> io::Result<()> {
        self.header(name, b'0', 0o644, size)?;
        let mut buffer = vec![0u8; 1 << 20];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = from.read(&mut buffer[..most])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.to.write_all(&buffer[..n])?;
            left -= n as u64;
        }
        self.pad(size)
    }

    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, b'5', 0o755, 0)
    }

    /// The two blocks that end an archive.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()
    }

    fn header(&mut self, name: &str, kind: u8, mode: u32, size: u64) -> io::Result<()> {
        let mut block = [0u8; BLOCK];
        if name.len() > 100 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "name too long for this archive"));
        }
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        if size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        block[136..148].copy_from_slice(b"00000000000\0");
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.to.write_all(&block)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest == 0 { Ok(()) } else { self.to.write_all(&[0; BLOCK][rest..]) }
    }
}
