//! Paths that somebody else controls, resolved only beneath a directory descriptor.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Links followed by one resolution, as in the kernel.
const LINKS_MAX: usize = 40;

/// A directory beneath which every path is resolved: absolute paths, absolute links and `..` all stay in
/// it, and links of `/proc` that lead anywhere are refused.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What [`Root::make`] makes when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Make {
    Directory,
    File,
}

impl Root {
    /// Takes a directory.
    #[must_use]
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens a directory by a path that the caller trusts.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` and so on.
    pub fn open_trusted(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// Opens what is at `path`, links followed.
    ///
    /// # Errors
    /// As `openat2`.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    /// Opens what is at `path` if there is no link on the way, nor at the end.
    ///
    /// # Errors
    /// `ELOOP` when there is one; otherwise as `openat2`.
    pub fn open_without_links(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path, flags: OFlags, further: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | further;
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Somebody renamed a directory meanwhile and the kernel cannot vouch for `..`.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// Opens (as `O_PATH`) what is at `path`, and makes it and its parents when missing. Dangling links on
    /// the way are filled in beneath the root.
    ///
    /// # Errors
    /// `ENOTDIR`, `ELOOP`, or those of `mkdirat` and `openat`.
    pub fn make(&self, path: &Path, make: Make, mode: u32) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => self.walk(path, make, Mode::from_raw_mode(mode)),
            result => result,
        }
    }

    /// The directory that holds the last part of `path`, made when missing, and that part.
    ///
    /// # Errors
    /// As [`Root::make`]; `EINVAL` when the path has no last part.
    pub fn make_parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().ok_or(Errno::INVAL)?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Ok((self.make(parent, Make::Directory, 0o755)?, name))
    }

    /// Walks in user space, one part after the other, each opened without following links, so that what is
    /// missing can be made without ever naming more than one part to the kernel.
    fn walk(&self, path: &Path, make: Make, mode: Mode) -> Result<OwnedFd, Errno> {
        let here = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut parts: VecDeque<OsString> = VecDeque::new();
        prepend(&mut parts, path);
        // The directories entered so far: `..` takes the last away and cannot leave the root.
        let mut entered: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = parts.pop_front() {
            if part == ".." {
                entered.pop();
                continue;
            }
            let parent = entered.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let last = parts.is_empty();
            let opened = match rustix::fs::openat(parent, &part, here, Mode::empty()) {
                Err(Errno::NOENT) => {
                    if last && make == Make::File {
                        // Not what somebody else makes there meanwhile, which could be a pipe to hang on.
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
                        match rustix::fs::openat(parent, &part, flags, mode) {
                            Ok(_) | Err(Errno::EXIST) => {}
                            Err(errno) => return Err(errno),
                        }
                    } else {
                        let mode = if last { mode } else { Mode::from_raw_mode(0o755) };
                        match rustix::fs::mkdirat(parent, &part, mode) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(errno) => return Err(errno),
                        }
                    }
                    rustix::fs::openat(parent, &part, here, Mode::empty())?
                }
                result => result?,
            };
            if FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let target =
                    OsString::from_vec(rustix::fs::readlinkat(&opened, "", Vec::new())?.into_bytes());
                let target = Path::new(&target);
                if target.is_absolute() {
                    entered.clear();
                }
                prepend(&mut parts, target);
                continue;
            }
            if last {
                return Ok(opened);
            }
            entered.push(opened);
        }
        match entered.pop() {
            Some(directory) => Ok(directory),
            None => self.open(Path::new("/"), OFlags::PATH),
        }
    }

    /// Makes a node, replacing anything at that name that is not a directory.
    ///
    /// # Errors
    /// `EPERM` in a user namespace.
    pub fn make_node(&self, path: &Path, kind: FileType, mode: u32, device: Dev) -> Result<OwnedFd, Errno> {
        let (parent, name) = self.make_parent(path)?;
        match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(mode), device) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(mode), device)?;
            }
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty())
    }

    /// Makes a symbolic link unless something of that name exists.
    ///
    /// # Errors
    /// As `symlinkat`.
    pub fn make_link(&self, path: &Path, target: &Path) -> Result<(), Errno> {
        let (parent, name) = self.make_parent(path)?;
        match rustix::fs::symlinkat(target, &parent, name) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Puts the parts of `path` in front of `parts`.
fn prepend(parts: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => parts.push_front(name.to_owned()),
            Component::ParentDir => parts.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
