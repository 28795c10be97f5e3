//! Guest memory: one file in memory, shared, not reserved. What the guest never touched costs nothing, and what it
//! gives back is given back to the host by a hole in the file, for every process that maps it.
//!
//! Where it can be, the file is of large pages: a guest then comes out to the host once where it would 512 times.

mod transfer;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use cata_sys::mount::{Filesystem, attribute};
use rustix::fs::{AtFlags, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

use crate::layout;

/// A piece of guest memory that a descriptor named and that was found to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: u64,
    pub(crate) length: u32,
}

/// From this size on a machine's memory is of large pages: in a smaller one too much of a page would lie idle.
const LARGE_FROM: u64 = 64 << 20;

/// A file of large pages, which the host gives for a file system that asks for them, and for a memfd does not. It has
/// no name, as a memfd has none, and is called as one. It cannot be sealed; beyond `bytes` its file system has no room.
fn large(bytes: u64) -> io::Result<File> {
    let tmpfs = Filesystem::open("tmpfs")?;
    tmpfs.set("huge", b"within_size")?;
    tmpfs.set("size", bytes.to_string().as_bytes())?;
    tmpfs.set("mode", b"0700")?;
    let root = tmpfs.mount(attribute::NOSUID | attribute::NODEV | attribute::NOEXEC)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&root, "memfd:guest", flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlinkat(&root, "memfd:guest", AtFlags::empty())?;
    rustix::fs::ftruncate(&file, bytes)?;
    Ok(file.into())
}

/// A file of small pages.
fn small(bytes: u64) -> io::Result<File> {
    let memfd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, bytes)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd.into())
}

/// All RAM of one machine.
#[derive(Debug)]
pub(crate) struct Ram {
    map: GuestMemoryMmap<()>,
    file: Arc<File>,
}

impl Ram {
    pub(crate) fn new(bytes: u64) -> io::Result<Ram> {
        let large = if bytes < LARGE_FROM { None } else { large(bytes).ok() };
        let file = Arc::new(match large {
            Some(file) => file,
            // Not root of any namespace, or a kernel without such pages.
            None => small(bytes)?,
        });
        let mut offset = 0;
        let mut regions = Vec::new();
        for (address, size) in layout::ram(bytes) {
            let part = FileOffset::from_arc(file.clone(), offset);
            let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
            let map = MmapRegion::build(Some(part), size as usize, libc::PROT_READ | libc::PROT_WRITE, flags)
                .map_err(io::Error::other)?;
            regions.extend(GuestRegionMmap::new(map, GuestAddress(address)));
            offset += size;
        }
        let map = GuestMemoryMmap::from_regions(regions).map_err(io::Error::other)?;
        Ok(Ram { map, file })
    }

    /// The rust-vmm crates' view of it.
    pub(crate) fn map(&self) -> &GuestMemoryMmap<()> {
        &self.map
    }

    /// Whether all of this is RAM, in one piece.
    pub(crate) fn contains(&self, address: u64, length: u64) -> bool {
        let Some(region) = self.map.find_region(GuestAddress(address)) else { return false };
        let end = region.start_addr().0 + region.len();
        length <= end - address
    }

    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        self.map.read_slice(buffer, GuestAddress(address)).is_ok()
    }

    pub(crate) fn write(&self, address: u64, buffer: &[u8]) -> bool {
        self.map.write_slice(buffer, GuestAddress(address)).is_ok()
    }

    /// Copies out of spans, `skip` bytes from their beginning; returns how much there was.
    pub(crate) fn gather(&self, spans: &[Span], skip: usize, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        for span in cut(spans, skip, buffer.len()) {
            let end = done + span.length as usize;
            if !self.read(span.address, &mut buffer[done..end]) {
                break;
            }
            done = end;
        }
        done
    }

    /// Copies into spans, `skip` bytes from their beginning; returns how much room there was.
    pub(crate) fn scatter(&self, spans: &[Span], skip: usize, buffer: &[u8]) -> usize {
        let mut done = 0;
        for span in cut(spans, skip, buffer.len()) {
            let end = done + span.length as usize;
            if !self.write(span.address, &buffer[done..end]) {
                break;
            }
            done = end;
        }
        done
    }

    /// Gives whole pages back to the host; the guest reads zeroes there from now on.
    pub(crate) fn discard(&self, address: u64, length: u64) -> io::Result<()> {
        if length == 0 || !self.contains(address, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self.file.as_fd(), flags, file_offset(address), length)?)
    }

    /// Copies a part of a file to guest memory within the kernel: no page of it is mapped here for that.
    pub(crate) fn load(
        &self,
        source: BorrowedFd<'_>,
        offset: u64,
        address: u64,
        length: u64,
    ) -> io::Result<()> {
        if !self.contains(address, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(file_offset(address)))?;
        let (mut from, end) = (offset, offset + length);
        while from < end {
            let left = (end - from) as usize;
            match rustix::fs::sendfile(&self.file, source, Some(&mut from), left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// How many bytes of the host's memory the guest holds.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_blocks as u64 * 512)
    }
}

/// Where in the file a guest's address is.
fn file_offset(address: u64) -> u64 {
    if address < layout::ABOVE_GAP { address } else { address - layout::ABOVE_GAP + layout::GAP }
}

/// The part of spans that begins after `skip` bytes and is at most `limit` bytes long.
pub(crate) fn cut(spans: &[Span], skip: usize, limit: usize) -> impl Iterator<Item = Span> + '_ {
    let (mut skip, mut left) = (skip, limit);
    spans.iter().filter_map(move |span| {
        let length = span.length as usize;
        if skip >= length {
            skip -= length;
            return None;
        }
        let take = (length - skip).min(left);
        let part = Span { address: span.address + skip as u64, length: take as u32 };
        skip = 0;
        left -= take;
        (take > 0).then_some(part)
    })
}

/// How many bytes spans hold.
pub(crate) fn total(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(parts: &[(u64, u32)]) -> Vec<Span> {
        parts.iter().map(|&(address, length)| Span { address, length }).collect()
    }

    #[test]
    fn cut_skips_and_limits_across_spans() {
        let all = spans(&[(100, 10), (300, 5), (400, 20)]);
        let part: Vec<_> = cut(&all, 8, 9).collect();
        assert_eq!(part, spans(&[(108, 2), (300, 5), (400, 2)]));
        assert_eq!(cut(&all, 35, 9).count(), 0);
        assert_eq!(cut(&all, 0, 0).count(), 0);
    }

    #[test]
    fn contains_knows_the_end_of_ram() {
        let ram = Ram::new(32 << 20).unwrap();
        assert!(ram.contains(0, 32 << 20));
        assert!(!ram.contains(1, 32 << 20));
        assert!(!ram.contains(u64::MAX, 1));
        assert!(!ram.contains(32 << 20, 0));
    }

    #[test]
    fn discarded_pages_read_as_zeroes_and_cost_nothing() {
        let ram = Ram::new(32 << 20).unwrap();
        assert!(ram.write(8192, &[7; 8192]));
        assert!(ram.resident().unwrap() >= 8192);
        ram.discard(8192, 8192).unwrap();
        assert_eq!(ram.resident().unwrap(), 0);
        let mut byte = [1];
        assert!(ram.read(9000, &mut byte));
        assert_eq!(byte, [0]);
        assert!(ram.discard(32 << 20, 4096).is_err());
        assert!(ram.discard((32 << 20) - 4096, 8192).is_err());
    }

    #[test]
    fn large_pages_are_given_back_whole_and_in_part() {
        let ram = Ram::new(LARGE_FROM).unwrap();
        let byte = |address| {
            let mut byte = [1];
            assert!(ram.read(address, &mut byte));
            byte[0]
        };
        assert_eq!(ram.resident().unwrap(), 0);
        assert!(ram.write(4 << 20, &[7; 4 << 20]));
        assert_eq!(ram.resident().unwrap(), 4 << 20);
        ram.discard((4 << 20) + 4096, 4096).unwrap();
        assert_eq!([byte(4 << 20), byte((4 << 20) + 4096), byte((4 << 20) + 8192)], [7, 0, 7]);
        ram.discard(6 << 20, 2 << 20).unwrap();
        assert!(ram.resident().unwrap() <= 2 << 20);
        ram.discard(4 << 20, 2 << 20).unwrap();
        assert_eq!(ram.resident().unwrap(), 0);
    }

    #[test]
    fn gather_and_scatter_meet_in_the_middle() {
        let ram = Ram::new(32 << 20).unwrap();
        let places = spans(&[(10, 3), (50, 4)]);
        assert_eq!(ram.scatter(&places, 1, b"abcdefgh"), 6);
        let mut back = [0; 8];
        assert_eq!(ram.gather(&places, 1, &mut back), 6);
        assert_eq!(&back[..6], b"abcdef");
    }
}
