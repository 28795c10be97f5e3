//! Maps of sparse files: where in the file the content of the archive goes.

use std::io::BufRead;

use super::header::{BLOCK, number};
use super::pax::decimal;
use crate::error::LayerError;

/// More pieces than any honest file has.
const PIECES_MAX: usize = 1 << 18;

/// A sparse file's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    /// (offset, length), ascending, not overlapping.
    pub(crate) pieces: Vec<(u64, u64)>,
    /// The file's size.
    pub(crate) real_size: u64,
}

impl Map {
    /// Checks that the pieces ascend, fit, and add up to what the archive holds.
    pub(crate) fn new(pieces: Vec<(u64, u64)>, real_size: u64, stored: u64) -> Result<Self, &'static str> {
        let (mut end, mut total) = (0u64, 0u64);
        for (offset, length) in &pieces {
            let stop = offset.checked_add(*length).ok_or("sparse map overflows")?;
            if *offset < end || stop > real_size {
                return Err("sparse map out of order");
            }
            end = stop;
            total += length;
        }
        if total != stored || i64::try_from(real_size).is_err() {
            return Err("sparse map does not fit the content");
        }
        Ok(Self { pieces, real_size })
    }
}

/// GNU's old form: four pieces in the header, more in blocks that follow it.
pub(crate) fn read_old(
    block: &[u8; BLOCK],
    mut next_block: impl FnMut() -> Result<[u8; BLOCK], LayerError>,
) -> Result<(Vec<(u64, u64)>, u64), LayerError> {
    const BAD: LayerError = LayerError::NotTar("malformed sparse header");
    let field = |bytes: &[u8]| u64::try_from(number(bytes).ok_or(BAD)?).map_err(|_| BAD);
    let mut pieces = Vec::new();
    let mut take = |area: &[u8]| -> Result<(), LayerError> {
        for piece in area.chunks_exact(24) {
            if piece[0] != 0 {
                pieces.push((field(&piece[..12])?, field(&piece[12..])?));
            }
        }
        if pieces.len() > PIECES_MAX { Err(BAD) } else { Ok(()) }
    };
    take(&block[386..482])?;
    let mut more = block[482] != 0;
    while more {
        let extension = next_block()?;
        take(&extension[..504])?;
        more = extension[504] != 0;
    }
    Ok((pieces, field(&block[483..495])?))
}

/// PAX 1.0: decimal lines in front of the content, padded to a block. Returns the pieces and the bytes used.
pub(crate) fn read_in_content(
    input: &mut impl BufRead,
    available: u64,
) -> Result<(Vec<(u64, u64)>, u64), LayerError> {
    const BAD: LayerError = LayerError::NotTar("malformed sparse map");
    let mut used = 0u64;
    let mut line = || -> Result<u64, LayerError> {
        let mut digits = Vec::with_capacity(20);
        loop {
            let byte = *input.fill_buf().map_err(read_error)?.first().ok_or(LayerError::Truncated)?;
            input.consume(1);
            used += 1;
            if byte == b'\n' {
                return decimal(&digits).ok_or(BAD);
            }
            if digits.len() >= 20 || used > available {
                return Err(BAD);
            }
            digits.push(byte);
        }
    };
    let count = usize::try_from(line()?).map_err(|_| BAD)?;
    if count > PIECES_MAX {
        return Err(BAD);
    }
    let mut pieces = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        pieces.push((line()?, line()?));
    }
    let padded = used.next_multiple_of(BLOCK as u64);
    if padded > available {
        return Err(BAD);
    }
    let mut left = usize::try_from(padded - used).map_err(|_| BAD)?;
    while left > 0 {
        let length = input.fill_buf().map_err(read_error)?.len().min(left);
        if length == 0 {
            return Err(LayerError::Truncated);
        }
        input.consume(length);
        left -= length;
    }
    Ok((pieces, padded))
}

/// An error of the stream under the tar: it carries the pipeline's own error, or is an early end.
pub(crate) fn read_error(error: std::io::Error) -> LayerError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        LayerError::Truncated
    } else {
        LayerError::Compression(error)
    }
}
