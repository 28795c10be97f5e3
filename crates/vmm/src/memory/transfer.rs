//! Transfers between descriptors and guest memory without a copy through this process.
//!
//! One of the fenced files with `unsafe`: the kernel is given addresses of guest memory directly, because a
//! Rust slice of memory that a guest changes at any time must not exist.
#![expect(unsafe_code, reason = "readv and writev on memory that the guest shares")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{Ram, Span, cut};

/// More than the kernel takes in one call is never given to it.
const MOST: usize = libc::UIO_MAXIOV as usize;
/// Up to so many pieces need no allocation.
const FEW: usize = 20;

type Piece = libc::iovec;

impl Ram {
    /// `readv` (`preadv` where there is an offset) from `source` into at most `limit` bytes of guest memory.
    pub(crate) fn fill(
        &self,
        source: BorrowedFd<'_>,
        spans: &[Span],
        skip: usize,
        limit: usize,
        at: Option<u64>,
    ) -> io::Result<usize> {
        self.with_pieces(spans, skip, limit, |pieces| {
            let (fd, list, count) = (source.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int);
            match at {
                // SAFETY: each piece lies in guest memory that stays mapped while `self` is borrowed, and to
                // which nobody holds a Rust reference.
                None => result(unsafe { libc::readv(fd, list, count) }),
                // SAFETY: as above.
                Some(offset) => result(unsafe { libc::preadv(fd, list, count, offset as libc::off_t) }),
            }
        })
    }

    /// `writev` (`pwritev` where there is an offset) of at most `limit` bytes of guest memory to `sink`.
    pub(crate) fn drain(
        &self,
        sink: BorrowedFd<'_>,
        spans: &[Span],
        skip: usize,
        limit: usize,
        at: Option<u64>,
    ) -> io::Result<usize> {
        self.with_pieces(spans, skip, limit, |pieces| {
            let (fd, list, count) = (sink.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int);
            match at {
                // SAFETY: each piece lies in guest memory that stays mapped while `self` is borrowed.
                None => result(unsafe { libc::writev(fd, list, count) }),
                // SAFETY: as above.
                Some(offset) => result(unsafe { libc::pwritev(fd, list, count, offset as libc::off_t) }),
            }
        })
    }

    fn with_pieces<T>(
        &self,
        spans: &[Span],
        skip: usize,
        limit: usize,
        run: impl FnOnce(&[Piece]) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut few = [Piece { iov_base: std::ptr::null_mut(), iov_len: 0 }; FEW];
        let mut many = Vec::new();
        let mut count = 0;
        for span in cut(spans, skip, limit).take(MOST) {
            let slice = self
                .map
                .get_slice(GuestAddress(span.address), span.length as usize)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let piece = Piece { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() };
            if spans.len() <= FEW {
                few[count] = piece;
            } else {
                many.push(piece);
            }
            count += 1;
        }
        run(if spans.len() <= FEW { &few[..count] } else { &many })
    }
}

fn result(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn file_to_guest_and_back_keeps_bytes_and_order() {
        let ram = Ram::new(32 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789abcdefghij").unwrap();
        let spans: Vec<_> = (0..5).map(|n| Span { address: 4096 - 2 + n * 5000, length: 3 }).collect();
        assert_eq!(ram.fill(file.as_fd(), &spans, 0, usize::MAX, Some(2)).unwrap(), 15);
        let mut out = tempfile::tempfile().unwrap();
        assert_eq!(ram.drain(out.as_fd(), &spans, 4, 9, None).unwrap(), 9);
        let mut text = String::new();
        out.rewind().unwrap();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "6789abcde");
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let ram = Ram::new(32 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        let spans = [Span { address: 1 << 40, length: 1 }];
        assert!(ram.drain(file.as_fd(), &spans, 0, 1, None).is_err());
    }
}
