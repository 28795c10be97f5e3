//! Trees of files as tar streams, and back: what `cp` and `export` move. No layers: every name means itself.
//!
//! Both ends are open directories; nothing outside them is ever named, whatever the tree or the stream says.

use std::io::{BufReader, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::ResolveFlags;

use crate::error::{Error, LayerError};
use crate::layer::apply::{Plain, apply_tree};
use crate::layer::compression::Decoder;
use crate::layer::diff;
pub use crate::layer::owners::{OwnerRange, Owners};
use crate::layer::place::Place;

/// How a stream is unpacked.
#[derive(Debug)]
pub struct Unpack {
    /// The place: nothing is made outside it.
    pub place: OwnedFd,
    /// Absolute links in the place start from it, as they do for those who live in it; without this they are
    /// refused.
    pub is_root: bool,
    /// Where in the place, as a path.
    pub base: Vec<u8>,
    /// Who owns everything; `None`: whom the stream says. With an owner given, setuid bits, file capabilities
    /// and device nodes do not come along.
    pub owner: Option<(u32, u32)>,
    /// Whose the ids in the stream are in the place.
    pub owners: Owners,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Bytes of regular files.
    pub size: u64,
    /// Device nodes that were left out.
    pub left_out: u64,
}

/// Writes what is at `name` beneath `parent` as a tar in which it is called `called`; returns the bytes of
/// regular files.
///
/// # Errors
/// What cannot be read or written.
pub fn write(
    parent: BorrowedFd<'_>,
    name: &[u8],
    called: &[u8],
    owners: &Owners,
    to: &mut dyn Write,
) -> Result<u64, Error> {
    Ok(diff::write_tree(parent, name, called, owners, to)?.size)
}

/// Writes everything in an open directory as a tar; returns the bytes of regular files.
///
/// # Errors
/// What cannot be read or written.
pub fn write_contents(dir: OwnedFd, owners: &Owners, to: &mut dyn Write) -> Result<u64, Error> {
    Ok(diff::write_contents(dir, owners, to)?.size)
}

/// Whether a stream is an archive that [`unpack`] would unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// A tar, compressed or not.
    Archive,
    /// Anything else.
    Other,
}

/// Looks at the beginning of a stream.
#[must_use]
pub fn looks(input: &mut dyn Read) -> Looks {
    use crate::layer::header;
    let buffered = BufReader::with_capacity(1 << 16, input);
    // What cannot be read is no archive; copying it will say why.
    let Ok(decoder) = Decoder::new(buffered) else { return Looks::Other };
    let mut block = Vec::with_capacity(header::BLOCK);
    let _ = decoder.take(header::BLOCK as u64).read_to_end(&mut block);
    match <&[u8; header::BLOCK]>::try_from(block.as_slice()) {
        Ok(block) if matches!(header::parse(block), Ok(Some(_))) => Looks::Archive,
        _ => Looks::Other,
    }
}

/// Unpacks a tar, compressed or not, and reads it to its end.
///
/// # Errors
/// A damaged stream; an entry that would be outside; a directory where something else is, or the other way
/// round.
pub fn unpack(input: &mut dyn Read, how: Unpack) -> Result<Unpacked, Error> {
    let resolve = if how.is_root { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH };
    let place = Place::over(how.place, resolve);
    let plain = Plain { base: trimmed(&how.base), owner: how.owner, owners: how.owners, left_out: 0 };
    let decoder = Decoder::new(BufReader::with_capacity(1 << 16, input)).map_err(LayerError::Compression)?;
    let (applied, plain) = apply_tree(BufReader::with_capacity(1 << 16, decoder), place, plain)?;
    Ok(Unpacked { size: applied.size, left_out: plain.left_out })
}

/// Relative to the place; what `..` means in it is the kernel's to say.
fn trimmed(mut path: &[u8]) -> Vec<u8> {
    while let [b'/', rest @ ..] | [rest @ .., b'/'] = path {
        path = rest;
    }
    path.to_vec()
}
