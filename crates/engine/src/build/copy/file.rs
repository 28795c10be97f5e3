//! One file, link or node: content with its holes, owner, mode, times, attributes.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cata_build::context::{Entry, EntryKind, Root as Source, StatCache};
use cata_spec::Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::{BuildError, Target, stamps, time};
use crate::error::Kind;

/// Bytes copied at a time.
const CHUNK: usize = 128 * 1024;
/// A file with more holes than this keeps them.
const HOLES: u64 = 1 << 20;

/// What a thread copies with.
pub(super) struct Work<'w> {
    buffer: Vec<u8>,
    /// Set when a file is not what it was when its digest was taken.
    changed: &'w AtomicBool,
    /// Files that were made, and whom to tell at the end.
    made: Vec<(Stat, Digest)>,
    known: Option<&'w Mutex<StatCache>>,
}

impl<'w> Work<'w> {
    pub(super) fn new(target: &Target<'w>, changed: &'w AtomicBool) -> Self {
        Self { buffer: vec![0; CHUNK], changed, made: Vec::new(), known: target.known }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.known {
            let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.made.drain(..).for_each(|(stat, digest)| known.put(&stat, digest));
        }
    }
}

/// Whether a file is still what it was when its digest was taken.
fn same(now: &Stat, then: &Stat) -> bool {
    now.st_ino == then.st_ino
        && now.st_size == then.st_size
        && (now.st_mtime, now.st_mtime_nsec) == (then.st_mtime, then.st_mtime_nsec)
        && (now.st_ctime, now.st_ctime_nsec) == (then.st_ctime, then.st_ctime_nsec)
}

/// One file, link or node.
pub(super) fn one(
    source: &Source,
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: &Target<'_>,
    work: &mut Work<'_>,
) -> Result<(), BuildError> {
    let shown = || Path::new(target.destination).join(OsStr::from_bytes(&entry.path));
    let failed = |errno: Errno| match errno {
        Errno::ISDIR => BuildError::new(
            Kind::InvalidArgument,
            format!(
                "cannot copy a file over the directory {}",
                shown().join(OsStr::from_bytes(name)).display()
            ),
        ),
        errno => BuildError::io("copy", &shown(), errno),
    };
    let name = OsStr::from_bytes(name);
    let (uid, gid) = target.owner(&entry.stat);
    match entry.kind {
        EntryKind::File => {
            let from = source.open(entry).map_err(failed)?;
            let now = rustix::fs::fstat(&from).map_err(failed)?;
            if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
                return Err(failed(Errno::STALE));
            }
            let mode = target.mode(&entry.stat);
            let to = create(parent, name, mode & 0o777).map_err(failed)?;
            content(&from, &to, &now, &mut work.buffer).map_err(failed)?;
            own(to.as_fd(), uid, gid).map_err(failed)?;
            if mode & (0o7000 | umask()) != 0 {
                rustix::fs::fchmod(&to, Mode::from_raw_mode(mode)).map_err(failed)?;
            }
            let plain = !xattrs(&from, &to).map_err(failed)?;
            rustix::fs::futimens(&to, &stamps(time(&entry.stat))).map_err(failed)?;
            // Looked at when all was read: whoever wrote before or meanwhile left a mark.
            let sound = same(&rustix::fs::fstat(&from).map_err(failed)?, &entry.stat);
            if !sound {
                work.changed.store(true, Ordering::Relaxed);
            }
            // Holes and attributes are part of a digest, and may not have come along.
            if let (Some(digest), Some(_), true) = (entry.digest, work.known, sound && plain && !sparse(&now))
            {
                work.made.push((rustix::fs::fstat(&to).map_err(failed)?, digest));
            }
        }
        EntryKind::Link => {
            let to = source.link(entry);
            replacing(parent, name, || rustix::fs::symlinkat(OsStr::from_bytes(&to), parent, name))
                .map_err(failed)?;
            finish_beside(parent, name, uid, gid, entry).map_err(failed)?;
        }
        EntryKind::Node => {
            let kind = FileType::from_raw_mode(entry.stat.st_mode);
            let mode = Mode::from_raw_mode(target.mode(&entry.stat) & 0o777);
            replacing(parent, name, || rustix::fs::mknodat(parent, name, kind, mode, entry.stat.st_rdev))
                .map_err(failed)?;
            finish_beside(parent, name, uid, gid, entry).map_err(failed)?;
        }
        EntryKind::Directory => {}
    }
    Ok(())
}

fn finish_beside(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    uid: u32,
    gid: u32,
    entry: &Entry,
) -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(parent, name, &stamps(time(&entry.stat)), AtFlags::SYMLINK_NOFOLLOW)
}

/// A new file; what is in its way goes, but for a directory.
pub(super) fn create(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(parent, name, || rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode)))
}

pub(super) fn replacing<T>(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    make: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        result => result,
    }
}

/// Of root's files too: a directory with set-group-ID hands its own group down.
pub(super) fn own(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Whether a file has holes worth keeping.
fn sparse(stat: &Stat) -> bool {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    size > stored + HOLES
}

/// Bytes; holes of a large file stay holes.
fn content(from: &OwnedFd, to: &OwnedFd, stat: &Stat, buffer: &mut [u8]) -> Result<(), Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if sparse(stat) {
        rustix::fs::ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
            stretch(from, to, start, end, buffer)?;
            at = end.max(start + 1);
        }
        return Ok(());
    }
    stretch(from, to, 0, u64::MAX, buffer)
}

fn stretch(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer[..most], at))?;
        let mut done = 0;
        while done < read {
            let offset = at + done as u64;
            done += rustix::io::retry_on_intr(|| rustix::io::pwrite(to, &buffer[done..read], offset))?;
        }
        at += read as u64;
        if read < most {
            return Ok(());
        }
    }
    Ok(())
}

/// Those that a layer keeps; says whether there are any.
pub(super) fn xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<bool, Errno> {
    let mut names = [0; 4096];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(false),
        other => other?,
    };
    let mut any = false;
    for name in names[..length].split(|byte| *byte == 0) {
        if !(name.starts_with(b"user.") || name == b"security.capability") {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        any = true;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(any)
}

/// The permission bits that are withheld in this process.
fn umask() -> u32 {
    static UMASK: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
    })
}
