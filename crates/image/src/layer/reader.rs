//! Entries of a tar stream, with PAX and GNU extensions put together.

use std::io::BufRead;

use super::header::{self, BLOCK, Header, Kind};
use super::pax::{LIMIT, Records};
use super::sparse::{self, Map, read_error};
use crate::error::LayerError;

/// A complete entry; its content follows in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content in the stream.
    pub(crate) stored: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) link: Vec<u8>,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<Map>,
}

impl Entry {
    /// The size of the file it makes.
    pub(crate) fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |map| map.real_size)
    }
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    global: Records,
    /// Content of the current entry not yet read, and the padding after it.
    remaining: u64,
    padding: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, global: Records::default(), remaining: 0, padding: 0, ended: false }
    }

    /// The next entry; what is left of the one before is skipped. `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        let mut records = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        let mut extended = false;
        loop {
            self.skip_content()?;
            let Some(block) = self.raw_block()? else {
                self.ended = true;
                return if extended { Err(LayerError::Truncated) } else { Ok(None) };
            };
            let Some(header) = header::parse(&block)? else {
                self.ended = true;
                return if extended { Err(LayerError::Truncated) } else { Ok(None) };
            };
            self.expect_content(header.size)?;
            match header.kind {
                Kind::PaxLocal => records.read(&self.small_content()?)?,
                Kind::PaxGlobal => {
                    let content = self.small_content()?;
                    self.global.read(&content)?;
                    records.read(&content)?;
                }
                Kind::LongName => long_name = Some(header::text(&self.small_content()?).to_vec()),
                Kind::LongLink => long_link = Some(header::text(&self.small_content()?).to_vec()),
                _ => return self.complete(header, &block, records, long_name, long_link).map(Some),
            }
            extended = true;
        }
    }

    fn complete(
        &mut self,
        header: Header,
        block: &[u8; BLOCK],
        records: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        let mut path = records.path.or(long_name).unwrap_or(header.name);
        let mut stored = header.size;
        if let Some(size) = records.size
            && matches!(header.kind, Kind::File | Kind::Sparse)
        {
            stored = size;
            self.expect_content(size)?;
        }
        let malformed = |path: &[u8], reason| LayerError::malformed(path, reason);
        let mut map = None;
        if header.kind == Kind::Sparse {
            let (pieces, real) = sparse::read_old(block, || self.raw_block()?.ok_or(LayerError::Truncated))?;
            map = Some((pieces, real));
        } else if header.kind == Kind::File
            && (records.sparse.map_in_content || !records.sparse.map.is_empty())
        {
            if let Some(name) = records.sparse.name {
                path = name;
            }
            let real =
                records.sparse.real_size.ok_or_else(|| malformed(&path, "sparse file without a size"))?;
            let pieces = if records.sparse.map_in_content {
                let (pieces, used) = sparse::read_in_content(&mut self.input, self.remaining)?;
                self.remaining -= used;
                stored -= used;
                pieces
            } else {
                records.sparse.map
            };
            map = Some((pieces, real));
        }
        let sparse = match map {
            Some((pieces, real)) => {
                Some(Map::new(pieces, real, stored).map_err(|reason| malformed(&path, reason))?)
            }
            None => None,
        };
        Ok(Entry {
            path,
            kind: if header.kind == Kind::Sparse { Kind::File } else { header.kind },
            mode: header.mode,
            uid: records.uid.unwrap_or(header.uid),
            gid: records.gid.unwrap_or(header.gid),
            stored,
            mtime: records.mtime.unwrap_or((header.mtime, 0)),
            link: records.link.or(long_link).unwrap_or(header.link),
            major: header.major,
            minor: header.minor,
            xattrs: records.xattrs,
            sparse,
        })
    }

    /// The next piece of the current entry's content; empty at its end.
    pub(crate) fn content(&mut self) -> Result<&[u8], LayerError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf().map_err(read_error)?;
        if buffer.is_empty() {
            return Err(LayerError::Truncated);
        }
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..length])
    }

    /// Says how much of [`Self::content`] was used.
    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.remaining -= length as u64;
    }

    /// Reads the stream to its end: archives have padding after their last entry.
    pub(crate) fn drain(&mut self) -> Result<(), LayerError> {
        loop {
            let length = self.input.fill_buf().map_err(read_error)?.len();
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
        }
    }

    fn expect_content(&mut self, size: u64) -> Result<(), LayerError> {
        const BAD: LayerError = LayerError::NotTar("entry of an impossible size");
        self.remaining = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).ok_or(BAD)? - size;
        if i64::try_from(size).is_err() { Err(BAD) } else { Ok(()) }
    }

    fn small_content(&mut self) -> Result<Vec<u8>, LayerError> {
        if self.remaining > LIMIT {
            return Err(LayerError::NotTar("extended header larger than 1 MiB"));
        }
        let mut content = Vec::new();
        loop {
            let piece = self.content()?;
            let length = piece.len();
            if length == 0 {
                return Ok(content);
            }
            content.extend_from_slice(piece);
            self.consume(length);
        }
    }

    fn skip_content(&mut self) -> Result<(), LayerError> {
        self.remaining += std::mem::take(&mut self.padding);
        loop {
            let length = self.content()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }

    /// The next block; `None` at the stream's end, which is fine between entries.
    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf().map_err(read_error)?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(LayerError::Truncated) };
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.input.consume(length);
            filled += length;
        }
        Ok(Some(block))
    }
}
