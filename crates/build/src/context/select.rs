//! Walking: what the sources of a COPY mean in a directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cata_spec::Digest;
use cata_sys::path::Root as Beneath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::ContextError;
use super::digest::{self, Wanted};
use super::stat_cache::StatCache;
use crate::ignore::Ignore;
use crate::key::{Key, Keyer};
use crate::pattern::Glob;

/// Deeper than any tree that can be copied.
const DEPTH_MAX: usize = 1000;

/// What a COPY takes.
#[derive(Debug)]
pub struct Selection {
    /// One for each source, or for each match of a pattern.
    pub roots: Vec<Root>,
}

/// One source.
#[derive(Debug)]
pub struct Root {
    /// It, opened as a path only.
    pub fd: OwnedFd,
    /// Its last part.
    pub name: Vec<u8>,
    /// Directories above it that `--parents` keeps, and what they are like.
    pub parents: Vec<(String, Stat)>,
    /// Itself (with an empty path) and, of a directory, all in it; parents before children.
    pub entries: Vec<Entry>,
}

/// One file, directory or link.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to its [`Root`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// As it was when it was looked at.
    pub stat: Stat,
    /// Of what is in it; of a directory's extended attributes, if it has any.
    pub digest: Option<Digest>,
}

/// What can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    /// A device or pipe, of another stage.
    Node,
}

/// How to look.
#[derive(Debug)]
pub struct How<'h> {
    /// `.dockerignore`.
    pub ignore: &'h Ignore,
    /// `--exclude`.
    pub exclude: &'h Ignore,
    /// `--parents`.
    pub parents: bool,
    /// Whether owners count, and devices are taken: in other stages, not in a context.
    pub stage: bool,
    /// Threads to read with.
    pub threads: usize,
}

/// Finds what `sources` (relative paths or patterns) take, with digests.
///
/// # Errors
/// [`ContextError`].
pub fn select(
    root: &Beneath,
    sources: &[&str],
    how: &How<'_>,
    cache: Option<&mut StatCache>,
) -> Result<Selection, ContextError> {
    let mut roots = Vec::new();
    for source in sources {
        let glob = Glob::new(source).map_err(|_| missing(source, false))?;
        if glob.is_plain() {
            roots.push(one(root, source, how)?);
            continue;
        }
        let before = roots.len();
        for path in matching(root, &glob, how)? {
            roots.push(one(root, &path, how)?);
        }
        if roots.len() == before {
            return Err(missing(source, false));
        }
    }
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    for root in &mut roots {
        let (fd, name) = (root.fd.as_fd(), String::from_utf8_lossy(&root.name).into_owned());
        for entry in &mut root.entries {
            if entry.kind == EntryKind::File {
                wanted.push(Wanted { root: fd, name: name.clone(), entry });
            }
        }
    }
    digest::fill(wanted, cache, how.threads)?;
    Ok(Selection { roots })
}

/// Everything in a directory, for copying alone.
///
/// # Errors
/// [`ContextError`].
pub fn select_without_digests(root: &Beneath, how: &How<'_>) -> Result<Selection, ContextError> {
    Ok(Selection { roots: vec![one(root, "", how)?] })
}

fn missing(source: &str, ignored: bool) -> ContextError {
    ContextError::NotFound { path: source.to_owned(), ignored }
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// One source without wildcards.
fn one(root: &Beneath, source: &str, how: &How<'_>) -> Result<Root, ContextError> {
    let (before, after) = match source.split_once("/./") {
        Some((before, after)) if how.parents => (before, after),
        _ => ("", source),
    };
    let path = format!("{before}/{after}");
    let typed = parts(&path);
    let lost = how.ignore.leaves_out(&typed);
    let shown = typed.join("/");
    if lost && !typed.is_empty() && !how.ignore.may_hold_exceptions(&typed) {
        return Err(missing(&shown, true));
    }
    let fd = match root.open(Path::new(if shown.is_empty() { "." } else { &shown }), OFlags::PATH) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(missing(&shown, lost));
        }
        other => other.map_err(|errno| ContextError::io(&shown, errno))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| ContextError::io(&shown, errno))?;
    let kind = kind(&stat, &shown, how)?
        .ok_or(ContextError::Unsupported { path: shown.clone(), what: "a socket" })?;
    if lost && kind != EntryKind::Directory {
        return Err(missing(&shown, true));
    }
    let mut kept = parts(after);
    let name = kept.pop().unwrap_or_default();
    let parents = if how.parents { above(root, before, &kept)? } else { Vec::new() };
    let mut found = Root { name: name.as_bytes().to_vec(), parents, entries: Vec::new(), fd };
    found.entries.push(Entry { path: Vec::new(), kind, stat, digest: None });
    if kind == EntryKind::Directory {
        let mut walk = Walk {
            how,
            typed: typed.iter().map(|part| (*part).to_owned()).collect(),
            below: Vec::new(),
            out: Vec::new(),
        };
        let directory =
            open_directory(found.fd.as_fd(), b".").map_err(|errno| ContextError::io(&shown, errno))?;
        found.entries[0].digest =
            digest::attributes(directory.as_fd()).map_err(|errno| ContextError::io(&shown, errno))?;
        walk.directory(&directory, &[])?;
        found.entries.append(&mut walk.out);
    }
    Ok(found)
}

/// The directories that `--parents` keeps: those of `kept`, beneath `before`.
fn above(root: &Beneath, before: &str, kept: &[&str]) -> Result<Vec<(String, Stat)>, ContextError> {
    let mut path = parts(before);
    let mut found = Vec::new();
    for part in kept {
        path.push(part);
        let shown = path.join("/");
        let stat = root
            .open(Path::new(&shown), OFlags::PATH)
            .and_then(rustix::fs::fstat)
            .map_err(|errno| ContextError::io(&shown, errno))?;
        found.push(((*part).to_owned(), stat));
    }
    Ok(found)
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

/// What something is; `None` for a socket, which is passed over.
fn kind(stat: &Stat, path: &str, how: &How<'_>) -> Result<Option<EntryKind>, ContextError> {
    let refused = |what| Err(ContextError::Unsupported { path: path.to_owned(), what });
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Some(EntryKind::File)),
        FileType::Directory => Ok(Some(EntryKind::Directory)),
        FileType::Symlink => Ok(Some(EntryKind::Link)),
        FileType::Socket => Ok(None),
        _ if how.stage => Ok(Some(EntryKind::Node)),
        FileType::Fifo => refused("a pipe"),
        _ => refused("a device"),
    }
}

struct Walk<'w> {
    how: &'w How<'w>,
    /// The root's own path in the context.
    typed: Vec<String>,
    /// Below the root.
    below: Vec<String>,
    out: Vec<Entry>,
}

impl Walk<'_> {
    fn directory(&mut self, fd: &OwnedFd, path: &[u8]) -> Result<(), ContextError> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        if self.below.len() > DEPTH_MAX {
            return Err(ContextError::io(
                &shown(),
                std::io::Error::other("directories are nested too deeply"),
            ));
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        let io = |errno: rustix::io::Errno| ContextError::io(&shown(), errno);
        for entry in rustix::fs::Dir::read_from(fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            self.entry(fd, path, &name)?;
        }
        Ok(())
    }

    fn entry(&mut self, fd: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), ContextError> {
        let mut full = path.to_vec();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        let shown = || String::from_utf8_lossy(&full).into_owned();
        self.below.push(String::from_utf8_lossy(name).into_owned());
        let (left_out, look_inside) = self.left_out();
        let result = (|| {
            if left_out && !look_inside {
                return Ok(());
            }
            let stat = match rustix::fs::statat(fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                // Gone since it was listed: editors do that.
                Err(rustix::io::Errno::NOENT) => return Ok(()),
                other => other.map_err(|errno| ContextError::io(&shown(), errno))?,
            };
            let Some(kind) = kind(&stat, &shown(), self.how)? else { return Ok(()) };
            if left_out && kind != EntryKind::Directory {
                return Ok(());
            }
            let at = self.out.len();
            self.out.push(Entry { path: full.clone(), kind, stat, digest: None });
            if kind == EntryKind::Directory {
                let inner =
                    open_directory(fd.as_fd(), name).map_err(|errno| ContextError::io(&shown(), errno))?;
                self.out[at].digest =
                    digest::attributes(inner.as_fd()).map_err(|errno| ContextError::io(&shown(), errno))?;
                self.directory(&inner, &full)?;
                if left_out && self.out.len() == at + 1 {
                    // Nothing in it was taken in again.
                    self.out.pop();
                }
            }
            Ok(())
        })();
        self.below.pop();
        result
    }

    /// Whether the path in `below` is left out, and whether something in it may not be.
    fn left_out(&self) -> (bool, bool) {
        let below: Vec<&str> = self.below.iter().map(String::as_str).collect();
        if !self.how.exclude.is_empty() && self.how.exclude.leaves_out(&below) {
            return (true, self.how.exclude.may_hold_exceptions(&below));
        }
        if self.how.ignore.is_empty() {
            return (false, true);
        }
        let full: Vec<&str> = self.typed.iter().map(String::as_str).chain(below).collect();
        (self.how.ignore.leaves_out(&full), self.how.ignore.may_hold_exceptions(&full))
    }
}

/// Paths that fit a pattern, sorted.
fn matching(root: &Beneath, glob: &Glob, how: &How<'_>) -> Result<Vec<String>, ContextError> {
    let parent = glob.plain_parent().join("/");
    let path = if parent.is_empty() { "." } else { &parent };
    let fd = match root.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.map_err(|errno| ContextError::io(&parent, errno))?,
    };
    let mut found = Vec::new();
    look(&fd, &parts(&parent).into_iter().map(str::to_owned).collect::<Vec<_>>(), glob, how, &mut found)?;
    found.sort();
    Ok(found)
}

fn look(
    fd: &OwnedFd,
    above: &[String],
    glob: &Glob,
    how: &How<'_>,
    found: &mut Vec<String>,
) -> Result<(), ContextError> {
    let shown = || above.join("/");
    let io = |errno: rustix::io::Errno| ContextError::io(&shown(), errno);
    if above.len() > DEPTH_MAX {
        return Err(ContextError::io(&shown(), std::io::Error::other("directories are nested too deeply")));
    }
    for entry in rustix::fs::Dir::read_from(fd).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        // A name that is no text fits no pattern that is.
        let Ok(text) = std::str::from_utf8(name) else { continue };
        let path: Vec<String> = above.iter().cloned().chain([text.to_owned()]).collect();
        let plain: Vec<&str> = path.iter().map(String::as_str).collect();
        if how.ignore.leaves_out(&plain) && !how.ignore.may_hold_exceptions(&plain) {
            continue;
        }
        if glob.matches(&plain) {
            if !how.ignore.leaves_out(&plain) {
                found.push(path.join("/"));
            }
            continue;
        }
        if glob.may_fit_below(&plain)
            && let Ok(inner) = open_directory(fd.as_fd(), name)
        {
            look(&inner, &path, glob, how, found)?;
        }
    }
    Ok(())
}

impl Selection {
    /// A digest of everything taken: names, kinds, modes and contents; owners only if they count.
    #[must_use]
    pub fn key(&self, owners: bool) -> Key {
        let mut keyer = Keyer::new("content");
        for root in &self.roots {
            keyer.bytes(&root.name);
            for (name, stat) in &root.parents {
                keyer.text(name).bytes(&stat.st_mode.to_le_bytes());
                if owners {
                    keyer.bytes(&stat.st_uid.to_le_bytes()).bytes(&stat.st_gid.to_le_bytes());
                }
            }
            for (at, first) in root.links() {
                keyer.bytes(&root.entries[at].path).bytes(&root.entries[first].path);
            }
            for entry in &root.entries {
                let mode = if entry.kind == EntryKind::Link { 0 } else { entry.stat.st_mode };
                keyer.bytes(&entry.path).bytes(&mode.to_le_bytes());
                if owners {
                    keyer.bytes(&entry.stat.st_uid.to_le_bytes()).bytes(&entry.stat.st_gid.to_le_bytes());
                }
                match entry.kind {
                    EntryKind::Link => {
                        keyer.bytes(&root.link(entry));
                    }
                    EntryKind::Node => {
                        keyer.bytes(&entry.stat.st_rdev.to_le_bytes());
                    }
                    EntryKind::File | EntryKind::Directory => {}
                }
                if let Some(digest) = &entry.digest {
                    keyer.bytes(digest.as_bytes());
                }
            }
        }
        keyer.key()
    }

    /// Files in it.
    #[must_use]
    pub fn files(&self) -> usize {
        self.roots.iter().map(|root| root.entries.len()).sum()
    }
}

impl Root {
    /// Files that are further names of an earlier one, which they come with: both by their place in `entries`.
    #[must_use]
    pub fn links(&self) -> BTreeMap<usize, usize> {
        let mut first = HashMap::new();
        let mut links = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.kind == EntryKind::File && entry.stat.st_nlink > 1 {
                let known = *first.entry((entry.stat.st_dev, entry.stat.st_ino)).or_insert(at);
                if known != at {
                    links.insert(at, known);
                }
            }
        }
        links
    }

    /// Where a link leads; empty if that cannot be told.
    #[must_use]
    pub fn link(&self, entry: &Entry) -> Vec<u8> {
        let path = if entry.path.is_empty() { OsStr::new("") } else { OsStr::from_bytes(&entry.path) };
        rustix::fs::readlinkat(&self.fd, path, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .unwrap_or_default()
    }

    /// Opens a file for reading, if it still is one.
    ///
    /// # Errors
    /// The system's.
    pub fn open(&self, entry: &Entry) -> Result<OwnedFd, rustix::io::Errno> {
        open_file(self.fd.as_fd(), &entry.path)
    }
}

/// Opens the file at `path` beneath `root`, or `root` itself, following no link.
pub(super) fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::ResolveFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if path.is_empty() {
        // Our own descriptor, by the only name it has.
        let name = format!("/proc/self/fd/{}", root.as_raw_fd());
        return rustix::fs::open(name, flags - OFlags::NOFOLLOW, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            result => return result,
        }
    }
}
