//! A layer once more, with its files belonging to other ids: for users who may not map owners by mounts.
//!
//! Made beside the layer, which stays as it is. Contents are copied by `copy_file_range`: a file system that can
//! share them does.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::diff::{self, Item, Kind};
use super::place::{self, Place, os};
use crate::error::LayerError;
use crate::layer::owners::Owners;

/// Makes what is in the unpacked layer `from` in the empty directory `to`; "outside" in `owners` is whom a file
/// belongs to there. Returns the bytes of its files.
pub(crate) fn make(from: &Path, to: &Path, owners: &Owners) -> Result<u64, LayerError> {
    let failed = |errno: Errno| LayerError::entry(b"./", errno);
    let mut twin = Twin {
        place: Place::open(to).map_err(failed)?,
        owners,
        links: HashMap::new(),
        directories: Vec::new(),
        size: 0,
    };
    diff::walk(from, &mut |item| twin.item(&item))?;
    // Making something in a directory changes its time.
    while let Some((path, mtime)) = twin.directories.pop() {
        let set = rustix::fs::utimensat(twin.place.root(), os(&path), &place::times(mtime), no_follow());
        set.map_err(|errno| LayerError::entry(&path, errno))?;
    }
    let stat = rustix::fs::stat(from).map_err(failed)?;
    let root = twin.place.root();
    twin.dress(root, &stat, b"./", &[])?;
    let opaque = rustix::fs::open(from, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)
        .and_then(|dir| diff::xattrs(dir.as_fd(), b"./"))?
        .opaque;
    if opaque {
        place::set_opaque(root).map_err(failed)?;
    }
    Ok(twin.size)
}

fn no_follow() -> AtFlags {
    AtFlags::SYMLINK_NOFOLLOW
}

fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

struct Twin<'o> {
    place: Place,
    owners: &'o Owners,
    /// Where a file with several names was made.
    links: HashMap<(u64, u64), Vec<u8>>,
    directories: Vec<(Vec<u8>, (i64, u32))>,
    size: u64,
}

impl Twin<'_> {
    fn item(&mut self, item: &Item<'_>) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::entry(item.path, errno);
        let above = &item.path[..item.path.len() - item.name.len()];
        let parent = self.place.directory(above.strip_suffix(b"/").unwrap_or(above), false, item.path)?;
        let parent = parent.as_fd();
        match item.kind {
            Kind::Whiteout => return place::make_whiteout(parent, item.name).map_err(failed),
            Kind::Directory { opaque } => {
                place::mkdir(parent, item.name, 0o700, opaque).map_err(failed)?;
                let made = place::open_beside(parent, item.name).map_err(failed)?;
                self.directories.push((item.path.to_vec(), mtime(&item.stat)));
                let kept = item.xattrs.as_deref().unwrap_or_default();
                return self.dress(made.as_fd(), &item.stat, item.path, kept);
            }
            Kind::Other => {}
        }
        if item.stat.st_nlink > 1 {
            let key = (item.stat.st_dev, item.stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let root = self.place.root();
                return rustix::fs::linkat(root, os(first), parent, os(item.name), AtFlags::empty())
                    .map_err(failed);
            }
            self.links.insert(key, item.path.to_vec());
        }
        match FileType::from_raw_mode(item.stat.st_mode) {
            FileType::RegularFile => self.file(item, parent),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(item.parent, os(item.name), Vec::new());
                let target = target.map_err(|errno| LayerError::source(item.path, errno))?;
                rustix::fs::symlinkat(&target, parent, os(item.name)).map_err(failed)?;
                self.dress_beside(item, parent)
            }
            kind => {
                let mode = Mode::from_raw_mode(item.stat.st_mode);
                rustix::fs::mknodat(parent, os(item.name), kind, mode, item.stat.st_rdev).map_err(failed)?;
                self.dress_beside(item, parent)?;
                rustix::fs::chmodat(parent, os(item.name), mode, AtFlags::empty()).map_err(failed)
            }
        }
    }

    fn file(&mut self, item: &Item<'_>, parent: BorrowedFd<'_>) -> Result<(), LayerError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let from = rustix::fs::openat(item.parent, os(item.name), flags, Mode::empty())
            .map_err(|errno| LayerError::source(item.path, errno))?;
        let kept = diff::xattrs(from.as_fd(), item.path)?.kept;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(parent, os(item.name), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| LayerError::entry(item.path, errno))?;
        let size = u64::try_from(item.stat.st_size).unwrap_or(0);
        let to = copy(from, to, &item.stat, size).map_err(|error| LayerError::entry(item.path, error))?;
        self.size += size;
        self.dress(to.as_fd(), &item.stat, item.path, &kept)?;
        rustix::fs::futimens(&to, &place::times(mtime(&item.stat)))
            .map_err(|errno| LayerError::entry(item.path, errno))
    }

    fn owner(&self, stat: &Stat, path: &[u8]) -> Result<(Option<Uid>, Option<Gid>), LayerError> {
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        let (uid, gid) = self.owners.outside(uid, gid).ok_or_else(|| LayerError::Unmapped {
            entry: String::from_utf8_lossy(path).into_owned(),
            uid,
            gid,
        })?;
        Ok(place::owner(uid, gid))
    }

    /// Owner first: a change of owner takes setuid bits and capabilities away.
    fn dress(
        &self,
        made: BorrowedFd<'_>,
        stat: &Stat,
        path: &[u8],
        kept: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::entry(path, errno);
        let (uid, gid) = self.owner(stat, path)?;
        rustix::fs::fchown(made, uid, gid).map_err(failed)?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
        for (name, value) in kept {
            rustix::fs::fsetxattr(made, os(name), value, XattrFlags::empty()).map_err(failed)?;
        }
        Ok(())
    }

    fn dress_beside(&self, item: &Item<'_>, parent: BorrowedFd<'_>) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::entry(item.path, errno);
        let (uid, gid) = self.owner(&item.stat, item.path)?;
        rustix::fs::chownat(parent, os(item.name), uid, gid, no_follow()).map_err(failed)?;
        for (name, value) in diff::xattrs_beside(item)? {
            place::set_xattr_beside(parent, item.name, &name, &value).map_err(failed)?;
        }
        rustix::fs::utimensat(parent, os(item.name), &place::times(mtime(&item.stat)), no_follow())
            .map_err(failed)
    }
}

/// Holes stay holes.
fn copy(from: OwnedFd, to: OwnedFd, stat: &Stat, size: u64) -> io::Result<File> {
    let pieces = diff::holes(&from, stat, size)?;
    let (mut from, mut to) = (File::from(from), File::from(to));
    for (offset, length) in pieces.unwrap_or_else(|| vec![(0, size)]) {
        from.seek(SeekFrom::Start(offset))?;
        to.seek(SeekFrom::Start(offset))?;
        io::copy(&mut io::Read::take(&from, length), &mut to)?;
    }
    to.set_len(size)?;
    Ok(to)
}
