//! COPY and ADD: a selection of files into a tree. What becomes of one of them is in [`file`].

mod file;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cata_build::context::{Entry, EntryKind, Root as Source, Selection, StatCache};
use cata_build::metadata::Mode as Chmod;
use cata_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::BuildError;
use crate::error::Kind;
use file::{Work, create, one, own, replacing, xattrs};

/// Files that a thread takes at a time.
const BATCH: usize = 32;

/// Where and how.
#[derive(Debug, Clone)]
pub(super) struct Target<'t> {
    pub(super) root: &'t Root,
    /// Absolute, within the root.
    pub(super) destination: &'t str,
    /// Written with a slash at its end.
    pub(super) into_directory: bool,
    /// `None`: as the source has it, in other stages; root's, of a context.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) keep_owner: bool,
    pub(super) chmod: Option<&'t Chmod>,
    pub(super) parents: bool,
    /// ADD: archives among the sources are unpacked.
    pub(super) unpack: bool,
    pub(super) threads: usize,
    /// Takes digests of the files that were made, if their times stay.
    pub(super) known: Option<&'t Mutex<StatCache>>,
    /// The directory that the root writes to, if it is an overlay.
    pub(super) upper: Option<&'t Path>,
}

impl Target<'_> {
    fn owner(&self, stat: &Stat) -> (u32, u32) {
        match self.owner {
            Some(owner) => owner,
            None if self.keep_owner => (stat.st_uid, stat.st_gid),
            None => (0, 0),
        }
    }

    fn mode(&self, stat: &Stat) -> u32 {
        let old = stat.st_mode & 0o7777;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.chmod.map_or(old, |chmod| chmod.apply(old, directory))
    }

    /// What becomes of a directory that is made for what is copied to be in.
    fn fresh(&self) -> Looks {
        Looks {
            owner: self.owner.unwrap_or((0, 0)),
            mode: self.chmod.map_or(0o755, Chmod::of_directories),
            time: None,
        }
    }
}

/// What a new directory looks like.
#[derive(Debug, Clone, Copy)]
struct Looks {
    owner: (u32, u32),
    mode: u32,
    /// `None`: as it comes.
    time: Option<(i64, i64)>,
}

/// Copies. Returns whether a file was changed by somebody meanwhile.
pub(super) fn copy(selection: &Selection, target: &Target<'_>) -> Result<bool, BuildError> {
    let changed = AtomicBool::new(false);
    let several = selection.roots.len() > 1;
    for source in &selection.roots {
        let Some(first) = source.entries.first() else { continue };
        let mut base = target.destination.trim_end_matches('/').to_owned();
        let mut made = Vec::new();
        if target.unpack && first.kind == EntryKind::File && unpack(source, first, target)? {
            continue;
        }
        for (parent, stat) in &source.parents {
            base.push_str(&format!("/{parent}"));
            let like = Looks { owner: target.owner(stat), mode: target.mode(stat), time: Some(time(stat)) };
            make_directory(target, &base, like, &mut made)?;
        }
        if first.kind == EntryKind::Directory {
            let mut like = Looks { time: Some(time(&first.stat)), ..target.fresh() };
            if target.parents && !source.name.is_empty() {
                base.push('/');
                base.push_str(&String::from_utf8_lossy(&source.name));
                like = Looks { owner: target.owner(&first.stat), mode: target.mode(&first.stat), ..like };
            }
            make_directory(target, &base, like, &mut made)?;
            tree(source, &base, target, &changed, &mut made)?;
        } else {
            let into = target.into_directory || several || target.parents || is_directory(target.root, &base);
            let (directory, name) = if into {
                (base.clone(), source.name.clone())
            } else {
                let (directory, name) = base.rsplit_once('/').unwrap_or(("", &base));
                (directory.to_owned(), name.as_bytes().to_vec())
            };
            make_directory(target, &directory, target.fresh(), &mut made)?;
            let parent = open_directory(target.root, &directory)?;
            let mut work = Work::new(target, &changed);
            one(source, first, parent.as_fd(), &name, target, &mut work)?;
        }
        set_times(target.root, &made);
    }
    Ok(changed.into_inner())
}

/// Unpacks a source that is an archive; says whether it is one.
fn unpack(source: &Source, entry: &Entry, target: &Target<'_>) -> Result<bool, BuildError> {
    use cata_image::tree::{self, Unpack};
    let name = String::from_utf8_lossy(&source.name).into_owned();
    let open = || -> Result<std::fs::File, BuildError> {
        Ok(source.open(entry).map_err(|errno| BuildError::io("open", Path::new(&name), errno))?.into())
    };
    match tree::looks(&mut open()?) {
        tree::Looks::Archive => {}
        tree::Looks::Other => return Ok(false),
    }
    make_directories(target, target.destination)?;
    let place = open_directory(target.root, "/")?;
    let base = target.destination.as_bytes().to_vec();
    tree::unpack(
        &mut open()?,
        Unpack { place, is_root: true, base, owner: target.owner, owners: tree::Owners::default() },
    )?;
    Ok(true)
}

/// Makes a file of bytes.
pub(super) fn inline(target: &Target<'_>, name: &str, content: &[u8]) -> Result<(), BuildError> {
    let base = target.destination.trim_end_matches('/').to_owned();
    let (directory, name) = if target.into_directory || is_directory(target.root, &base) {
        (base.clone(), name)
    } else {
        let (directory, name) = base.rsplit_once('/').unwrap_or(("", &base));
        (directory.to_owned(), name)
    };
    make_directories(target, &directory)?;
    let parent = open_directory(target.root, &directory)?;
    let failed = |errno: Errno| BuildError::io("make", Path::new(&format!("{directory}/{name}")), errno);
    let file = create(parent.as_fd(), OsStr::new(name), 0o644).map_err(failed)?;
    write_all(file.as_fd(), content).map_err(failed)?;
    let (uid, gid) = target.owner.unwrap_or((0, 0));
    own(file.as_fd(), uid, gid).map_err(failed)?;
    let mode = target.chmod.map_or(0o644, |chmod| chmod.apply(0o644, false));
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed)
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Whether a path leads to a directory.
pub(super) fn is_directory(root: &Root, path: &str) -> bool {
    let path = if path.is_empty() { "/" } else { path };
    root.open(Path::new(path), OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

pub(super) fn open_directory(root: &Root, path: &str) -> Result<OwnedFd, BuildError> {
    let shown = if path.is_empty() { "/" } else { path };
    root.open(Path::new(shown), OFlags::RDONLY | OFlags::DIRECTORY).map_err(|errno| match errno {
        Errno::NOTDIR => {
            BuildError::new(Kind::InvalidArgument, format!("cannot copy into {shown}: it is not a directory"))
        }
        errno => BuildError::io("open", Path::new(shown), errno),
    })
}

/// A directory that was made, with the time it gets when everything in it is there; `None`: as it comes.
type Made = (String, Option<(i64, i64)>);

/// Makes a directory that something is copied into, and what is missing above it.
pub(super) fn make_directories(target: &Target<'_>, path: &str) -> Result<(), BuildError> {
    make_directory(target, path, target.fresh(), &mut Vec::new())
}

/// The same with the looks of the last one.
fn make_directory(
    target: &Target<'_>,
    path: &str,
    like: Looks,
    made: &mut Vec<Made>,
) -> Result<(), BuildError> {
    if is_directory(target.root, path) {
        return Ok(());
    }
    let failed = |path: &str, errno: Errno| match errno {
        Errno::NOTDIR | Errno::EXIST => BuildError::new(
            Kind::InvalidArgument,
            format!("cannot make the directory {path}: something else is there"),
        ),
        errno => BuildError::io("make", Path::new(path), errno),
    };
    let mut above = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let here = format!("{above}/{part}");
        if !is_directory(target.root, &here) {
            let last = here.trim_matches('/') == path.trim_matches('/');
            let fd = target
                .root
                .make(Path::new(&here), cata_sys::path::Make::Directory, 0o755)
                .map_err(|errno| failed(&here, errno))?;
            let fd = reopen_directory(fd.as_fd()).map_err(|errno| failed(&here, errno))?;
            let Looks { owner: (uid, gid), mode, time } = if last { like } else { target.fresh() };
            own(fd.as_fd(), uid, gid).map_err(|errno| failed(&here, errno))?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|errno| failed(&here, errno))?;
            made.push((here.clone(), time));
        }
        above = here;
    }
    Ok(())
}

fn reopen_directory(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn time(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

fn stamps((seconds, nanos): (i64, i64)) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanos };
    Timestamps { last_access: at, last_modification: at }
}

/// Deepest first, for making something in a directory changes its time.
fn set_times(root: &Root, made: &[Made]) {
    for (path, time) in made.iter().rev() {
        let Some(time) = time else { continue };
        if let Ok(fd) = root.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY) {
            // A time is no reason to fail a build.
            let _ = rustix::fs::futimens(&fd, &stamps(*time));
        }
    }
}

/// A directory's content: directories first, then the files on all cores.
fn tree(
    source: &Source,
    base: &str,
    target: &Target<'_>,
    changed: &AtomicBool,
    made: &mut Vec<Made>,
) -> Result<(), BuildError> {
    let text = |path: &[u8]| -> PathBuf {
        Path::new("/").join(base.trim_start_matches('/')).join(OsStr::from_bytes(path))
    };
    let mut new: HashSet<PathBuf> = made.iter().map(|(path, _)| PathBuf::from(path)).collect();
    for entry in source.entries.iter().skip(1).filter(|entry| entry.kind == EntryKind::Directory) {
        let path = text(&entry.path);
        if directory(source, entry, &path, target, made)? {
            new.insert(path);
        }
    }
    let beneath = target.upper.and_then(|upper| upper_place(target.root, upper, base));
    let open_parent = |directory: &[u8]| -> Result<OwnedFd, BuildError> {
        let path = text(directory);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let seen = target.root.open(&path, flags).map_err(|errno| BuildError::io("open", &path, errno))?;
        // In a directory that is new nothing of lower layers shows: its files are made without the overlay.
        let below = beneath.as_ref().filter(|_| new.contains(&path));
        let name =
            if directory.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(directory)) };
        let direct = below.and_then(|place| place.open_without_links(name, flags).ok());
        Ok(direct.filter(|direct| same_inode(direct, &seen)).unwrap_or(seen))
    };
    let links = source.links();
    let files: Vec<&Entry> = source
        .entries
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(at, entry)| entry.kind != EntryKind::Directory && !links.contains_key(at))
        .map(|(_, entry)| entry)
        .collect();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<BuildError>> = Mutex::new(None);
    let work = || {
        let mut with = Work::new(target, changed);
        let mut parent: Option<(&[u8], OwnedFd)> = None;
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) =
                files.get(start..files.len().min(start + BATCH)).filter(|batch| !batch.is_empty())
            else {
                return;
            };
            for entry in batch {
                let (directory, name) = split(&entry.path);
                let done = (|| {
                    if parent.as_ref().is_none_or(|(known, _)| *known != directory) {
                        parent = Some((directory, open_parent(directory)?));
                    }
                    match &parent {
                        Some((_, fd)) => one(source, entry, fd.as_fd(), name.as_bytes(), target, &mut with),
                        None => Ok(()),
                    }
                })();
                if let Err(error) = done {
                    next.fetch_add(files.len(), Ordering::Relaxed);
                    failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    if files.len() <= BATCH || target.threads < 2 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..target.threads {
                scope.spawn(work);
            }
        });
    }
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    for (at, first) in links {
        link(target.root, &text(&source.entries[first].path), &text(&source.entries[at].path))?;
    }
    Ok(())
}

/// The directory at `base` in the layer that is written, if it can be told.
fn upper_place(root: &Root, upper: &Path, base: &str) -> Option<Root> {
    let place = own_path(open_directory(root, base).ok()?.as_fd());
    let upper = Root::open_trusted(upper).ok()?;
    upper.open_without_links(&place, OFlags::PATH | OFlags::DIRECTORY).ok().map(Root::new)
}

fn same_inode(one: &OwnedFd, other: &OwnedFd) -> bool {
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_ino);
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

/// Another name of a file that was copied.
fn link(root: &Root, first: &Path, path: &Path) -> Result<(), BuildError> {
    let failed = |errno: Errno| BuildError::io("link", path, errno);
    let parent = |path: &Path| {
        let above = path.parent().unwrap_or(Path::new("/"));
        root.open(above, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let (from, to) = (parent(first)?, parent(path)?);
    let (old, new) = (name(first), name(path));
    replacing(to.as_fd(), &new, || rustix::fs::linkat(&from, &old, &to, &new, AtFlags::empty()))
        .map_err(failed)
}

/// One directory of a tree. If it is there, it becomes what the source's is. Says whether it is new.
fn directory(
    source: &Source,
    entry: &Entry,
    path: &Path,
    target: &Target<'_>,
    made: &mut Vec<Made>,
) -> Result<bool, BuildError> {
    let failed = |errno: Errno| BuildError::io("make", path, errno);
    let (fd, new) = match target.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => (fd, false),
        Err(Errno::NOENT) => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let name = path.file_name().unwrap_or_default();
            let above = target.root.open(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
            rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            (rustix::fs::openat(&above, name, flags, Mode::empty()).map_err(failed)?, true)
        }
        Err(_) => {
            return Err(BuildError::new(
                Kind::InvalidArgument,
                format!("cannot copy the directory {} over what is not one", path.display()),
            ));
        }
    };
    let (uid, gid) = target.owner(&entry.stat);
    own(fd.as_fd(), uid, gid).map_err(failed)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(target.mode(&entry.stat))).map_err(failed)?;
    // Only those with attributes have a digest.
    if entry.digest.is_some() {
        xattrs(&source.open(entry).map_err(failed)?, &fd).map_err(failed)?;
    }
    if let Some(shown) = path.to_str() {
        made.push((shown.to_owned(), Some(time(&entry.stat))));
    }
    Ok(new)
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], OsStr::from_bytes(&path[at + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}

/// The path by which this process can name an open directory.
pub(super) fn own_path(fd: BorrowedFd<'_>) -> PathBuf {
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&name).unwrap_or_else(|_| PathBuf::from(name))
}
