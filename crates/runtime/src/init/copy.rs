//! `tmpcopyup`: a new file system starts with what was in the directory it hides.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use cata_sys::path::Root;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;

/// Deeper trees are refused rather than followed.
const DEPTH_MAX: usize = 64;

/// Copies what is at `target` into a detached file system.
pub(super) fn up(root: &Root, target: &Path, tree: BorrowedFd<'_>) -> Result<(), Failure> {
    let from = match root.open(target, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(()),
        result => result.map_err(Failure::at(Stage::MountTarget, target.display()))?,
    };
    // A tree that is only a path cannot be written to.
    let into =
        rustix::fs::openat(tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let into = into.map_err(Failure::at(Stage::Mount, target.display()))?;
    directory(from.as_fd(), into.as_fd(), 0)
        .map_err(Failure::at(Stage::Mount, format!("{} (tmpcopyup)", target.display())))
}

fn directory(from: BorrowedFd<'_>, into: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let below = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(into, name, mode)?;
                let source = rustix::fs::openat(from, name, below | OFlags::DIRECTORY, Mode::empty())?;
                let copy = rustix::fs::openat(into, name, below | OFlags::DIRECTORY, Mode::empty())?;
                directory(source.as_fd(), copy.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => {
                let source = rustix::fs::openat(from, name, below, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let copy = rustix::fs::openat(into, name, flags, mode)?;
                while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? > 0 {}
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, into, name)?;
            }
            kind => rustix::fs::mknodat(into, name, kind, mode, stat.st_rdev)?,
        }
        own(into, name, &stat)?;
    }
    Ok(())
}

fn own(into: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    // Changing the owner takes set-user-id bits away.
    rustix::fs::chmodat(into, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
}
