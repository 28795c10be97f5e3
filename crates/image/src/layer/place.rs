//! Making things beneath one directory and nowhere else.
//!
//! Every path is resolved by the kernel from the directory's descriptor with `RESOLVE_BENEATH`: `..` and
//! absolute links that would leave it fail there. The last part of a path is never followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::LayerError;

/// Parents kept open: entries come directory by directory.
const PARENTS_OPEN: usize = 16;

/// A directory being filled.
#[derive(Debug)]
pub(crate) struct Place {
    root: OwnedFd,
    resolve: ResolveFlags,
    /// Least recently used first.
    parents: Vec<(Vec<u8>, Rc<OwnedFd>)>,
}

/// What a directory entry leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Directory,
    Whiteout,
    Other,
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl Place {
    pub(crate) fn open(dir: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::over(rustix::fs::open(dir, flags, Mode::empty())?, ResolveFlags::BENEATH))
    }

    /// An open directory; absolute links either leave it (`BENEATH`) or start from it (`IN_ROOT`).
    pub(crate) fn over(root: OwnedFd, resolve: ResolveFlags) -> Self {
        Self { root, resolve: resolve | ResolveFlags::NO_MAGICLINKS, parents: Vec::new() }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path` (normal form), made with its parents when missing if `make`.
    pub(crate) fn directory(
        &mut self,
        path: &[u8],
        make: bool,
        entry: &[u8],
    ) -> Result<Rc<OwnedFd>, LayerError> {
        if let Some(at) = self.parents.iter().rposition(|(known, _)| known == path) {
            let found = self.parents.remove(at);
            let fd = Rc::clone(&found.1);
            self.parents.push(found);
            return Ok(fd);
        }
        let fd = match self.open_directory(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if make => self.make_directories(path, entry)?,
            other => other.map_err(|errno| beneath(errno, entry))?,
        };
        let fd = Rc::new(fd);
        if self.parents.len() >= PARENTS_OPEN {
            self.parents.remove(0);
        }
        self.parents.push((path.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { os(b".") } else { os(path) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), self.resolve)
    }

    /// Makes what is missing of `path`, one part after the other. A whiteout on the way becomes an opaque
    /// directory: what it hid stays hidden.
    fn make_directories(&mut self, path: &[u8], entry: &[u8]) -> Result<OwnedFd, LayerError> {
        let mut end = 0;
        let mut above = self.open_directory(b"").map_err(|errno| beneath(errno, entry))?;
        for part in path.split(|b| *b == b'/') {
            end = if end == 0 { part.len() } else { end + 1 + part.len() };
            match self.open_directory(&path[..end]) {
                Ok(fd) => {
                    above = fd;
                    continue;
                }
                Err(Errno::NOENT) => {
                    mkdir(above.as_fd(), part, 0o755, false)
                        .map_err(|errno| LayerError::entry(entry, errno))?;
                }
                Err(Errno::NOTDIR) if existing(above.as_fd(), part) == Ok(Existing::Whiteout) => {
                    rustix::fs::unlinkat(&above, os(part), AtFlags::empty())
                        .map_err(|errno| LayerError::entry(entry, errno))?;
                    mkdir(above.as_fd(), part, 0o755, true)
                        .map_err(|errno| LayerError::entry(entry, errno))?;
                }
                Err(errno) => return Err(beneath(errno, entry)),
            }
            above = self.open_directory(&path[..end]).map_err(|errno| beneath(errno, entry))?;
        }
        Ok(above)
    }

    /// Removes whatever is at `name`; says what it was, `None` if nothing was there.
    pub(crate) fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Existing>, Errno> {
        let found = match existing(parent, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        // Whatever it was, an open parent's path may have led through it.
        self.parents.clear();
        if found == Existing::Directory {
            remove_tree(parent, name)?;
        } else {
            rustix::fs::unlinkat(parent, os(name), AtFlags::empty())?;
        }
        Ok(Some(found))
    }
}

/// A failure to resolve a parent: leaving the layer is named as such.
fn beneath(errno: Errno, entry: &[u8]) -> LayerError {
    match errno {
        Errno::XDEV => LayerError::Escapes(String::from_utf8_lossy(entry).into_owned()),
        Errno::NOTDIR => LayerError::malformed(entry, "its parent is not a directory"),
        Errno::LOOP => LayerError::malformed(entry, "its parent is a loop of symbolic links"),
        errno => LayerError::entry(entry, errno),
    }
}

/// What is at `name`, links not followed.
pub(crate) fn existing(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Existing, Errno> {
    let stat = rustix::fs::statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Existing::Directory,
        FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
        _ => Existing::Other,
    })
}

/// Makes a directory, opaque if what is below it in lower layers must stay hidden.
pub(crate) fn mkdir(parent: BorrowedFd<'_>, name: &[u8], mode: u32, opaque: bool) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, os(name), Mode::from_raw_mode(mode & 0o777))?;
    if opaque { set_opaque(open_beside(parent, name)?.as_fd()) } else { Ok(()) }
}

/// Opens a directory without following a link.
pub(crate) fn open_beside(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, os(name), flags, Mode::empty())
}

/// What the names of overlay's own attributes begin with.
pub(crate) fn overlays_own() -> &'static str {
    if cata_sys::namespace::is_first_of_users() { "trusted.overlay." } else { "user.overlay." }
}

/// Hides everything that lower layers have in the directory.
pub(crate) fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, format!("{}opaque", overlays_own()), b"y", XattrFlags::empty())
}

/// Hides `name` of lower layers.
pub(crate) fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::mknodat(parent, os(name), FileType::CharacterDevice, Mode::empty(), 0)
}

/// Sets an extended attribute of something that cannot be opened (links, devices), by way of the parent's
/// descriptor; the last part is not followed.
pub(crate) fn set_xattr_beside(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attribute: &[u8],
    value: &[u8],
) -> Result<(), Errno> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    rustix::fs::lsetxattr(os(&path), os(attribute), value, XattrFlags::empty())
}

/// Owner as rustix wants it.
pub(crate) fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Times as rustix wants them: access as modification.
pub(crate) fn times(mtime: (i64, u32)) -> Timestamps {
    let at = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) };
    Timestamps { last_access: at, last_modification: at }
}

/// The permission bits that `open` and `mkdir` withhold in this process.
pub(crate) fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
    })
}

/// Removes a directory with everything in it, following nothing. Iterative in depth: names are a stranger's.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    // (directory, its name in the one above)
    let mut stack: Vec<(OwnedFd, Vec<u8>)> = vec![(open_beside(parent, name)?, name.to_owned())];
    while let Some((directory, _)) = stack.last() {
        let mut deeper = None;
        for child in rustix::fs::Dir::read_from(directory)? {
            let child = child?;
            let child = child.file_name().to_bytes();
            if matches!(child, b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(directory, os(child), AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR) => {
                    deeper = Some(child.to_owned());
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        if let Some(child) = deeper {
            let opened = open_beside(directory.as_fd(), &child)?;
            stack.push((opened, child));
            continue;
        }
        if let Some((_, done)) = stack.pop() {
            let above = stack.last().map_or(parent, |(fd, _)| fd.as_fd());
            rustix::fs::unlinkat(above, os(&done), AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}
