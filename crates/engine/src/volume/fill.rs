//! The first use of an empty volume: it receives what the image has at that place, owners and all.
//!
//! The image's side is resolved with `RESOLVE_IN_ROOT` beneath the image's root: a link in an image cannot
//! lead the copy to the host's files.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cata_sys::mount::{Filesystem, attribute};

use rustix::fs::{
    self as rfs, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// [`fill`] from an image given by its layer directories, topmost first.
///
/// # Errors
/// The layers cannot be mounted, or a file operation.
pub fn from_layers(layers: &[PathBuf], target: &str, data: &Path) -> Result<()> {
    let occupied = fs::read_dir(data).map_err(Error::file("read", data))?.next().is_some();
    if occupied {
        return Ok(());
    }
    match together(layers)? {
        None => Ok(()),
        Some(root) => fill(root.as_fd(), target, data),
    }
}

/// What an image's layers are together, to be read; `None`: there is none.
pub(crate) fn together(layers: &[PathBuf]) -> Result<Option<OwnedFd>> {
    let open = |path: &PathBuf| fs::File::open(path).map_err(Error::file("open layer", path));
    let mut opened = layers.iter().map(open).collect::<Result<Vec<_>>>()?;
    if opened.len() < 2 {
        // Overlay wants two layers at least; one is its own merged view.
        return Ok(opened.pop().map(OwnedFd::from));
    }
    let first = layers.first().cloned().unwrap_or_default();
    merged(&opened).map(Some).map_err(Error::file("mount the image's layers with", first))
}

/// A detached read-only overlay of the layers: seen by nobody else, gone when the descriptor is.
fn merged(layers: &[fs::File]) -> io::Result<OwnedFd> {
    let path = |layer: &fs::File| format!("/proc/self/fd/{}", layer.as_raw_fd());
    let overlay = Filesystem::open("overlay")?;
    // `lowerdir+` is of Linux 6.5; before it, one string of at most 256 bytes holds 14 layers named by
    // descriptors.
    let added = layers.iter().try_for_each(|layer| overlay.set("lowerdir+", path(layer).as_bytes()));
    if let Err(Errno::INVAL) = added {
        let all: Vec<String> = layers.iter().map(path).collect();
        let overlay = Filesystem::open("overlay")?;
        overlay.set("lowerdir", all.join(":").as_bytes())?;
        return Ok(overlay.mount(attribute::RDONLY)?);
    }
    added?;
    Ok(overlay.mount(attribute::RDONLY)?)
}

/// Copies the directory `target` of the image whose root is `root` into `data`, if `data` is empty.
///
/// # Errors
/// A file operation, named by the volume's directory.
pub fn fill(root: BorrowedFd<'_>, target: &str, data: &Path) -> Result<()> {
    let occupied = fs::read_dir(data).map_err(Error::file("read", data))?.next().is_some();
    if occupied {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let beneath = target.trim_start_matches('/');
    let source = match rfs::openat2(root, beneath, flags, Mode::empty(), resolve) {
        Ok(source) => source,
        // The image has nothing there (or a file): the volume stays as it is.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(Error::file("open image directory", target)(errno)),
    };
    let copied = (|| -> io::Result<()> {
        let into = rfs::openat(CWD, data, flags, Mode::empty())?;
        let stat = rfs::fstat(&source)?;
        tree(source.as_fd(), into.as_fd())?;
        dress(into.as_fd(), &stat)
    })();
    copied.map_err(Error::file("copy the image's files into", data))
}

fn tree(source: BorrowedFd<'_>, into: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rfs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rfs::mkdirat(into, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rfs::openat(source, name, flags, Mode::empty())?;
                let below_into = rfs::openat(into, name, flags, Mode::empty())?;
                tree(below.as_fd(), below_into.as_fd())?;
                attributes(below.as_fd(), below_into.as_fd())?;
                dress(below_into.as_fd(), &stat)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = rfs::openat(source, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rfs::openat(into, name, flags, Mode::RWXU)?;
                let (from, to) = contents(from, to)?;
                attributes(from.as_fd(), to.as_fd())?;
                dress(to.as_fd(), &stat)?;
            }
            FileType::Symlink => {
                let text = rfs::readlinkat(source, name, Vec::new())?;
                rfs::symlinkat(&text, into, name)?;
                owner(into, name, &stat)?;
            }
            kind => {
                rfs::mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
                owner(into, name, &stat)?;
                rfs::chmodat(into, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
            }
        }
    }
    Ok(())
}

fn contents(from: OwnedFd, to: OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut from, mut to) = (fs::File::from(from), fs::File::from(to));
    // copy_file_range where the file system has it.
    io::copy(&mut from, &mut to)?;
    Ok((from.into(), to.into()))
}

fn owner(into: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rfs::chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner first: a change of owner takes the setuid bits away.
fn dress(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rfs::fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rfs::fchmod(fd, Mode::from_raw_mode(stat.st_mode))?;
    #[expect(clippy::cast_possible_wrap, reason = "nanoseconds are below a billion")]
    let time = |seconds: i64, nanos: u64| rfs::Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rfs::futimens(fd, &times)?)
}

/// Extended attributes, but for overlay's own and those this file system does not take.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0_u8; 4096];
    let count = match rfs::flistxattr(from, &mut names) {
        Ok(count) => count,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in names[..count].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = CString::new(name).map_err(io::Error::other)?;
        let mut value = vec![0_u8; 65536];
        let length = rfs::fgetxattr(from, &name, &mut value)?;
        match rfs::fsetxattr(to, &name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => {
                let text = format!("{}: {errno}", OsStr::from_bytes(name.to_bytes()).display());
                return Err(io::Error::new(io::Error::from(errno).kind(), text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn fill_copies_once_and_stays_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, data) = (dir.path().join("root"), dir.path().join("data"));
        fs::create_dir_all(root.join("var/lib/db/sub")).unwrap();
        fs::create_dir_all(&data).unwrap();
        fs::write(root.join("var/lib/db/sub/file"), "hello").unwrap();
        fs::set_permissions(root.join("var/lib/db"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("sub/file", root.join("var/lib/db/link")).unwrap();
        // An absolute link is beneath the image's root.
        symlink("/var/lib", root.join("alias")).unwrap();
        let fd = fs::File::open(&root).unwrap();
        fill(fd.as_fd(), "/alias/db", &data).unwrap();
        assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "hello");
        assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("sub/file"));
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o750);
        fs::write(data.join("sub/file"), "changed").unwrap();
        fill(fd.as_fd(), "/var/lib/db", &data).unwrap();
        assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "changed");
    }

    #[test]
    fn fill_of_a_missing_directory_leaves_the_volume_empty() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        fill(fd.as_fd(), "/nowhere", &data).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }
}
