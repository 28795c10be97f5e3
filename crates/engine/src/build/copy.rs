//! COPY and ADD: a selection of files into a tree.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cata_build::context::{Entry, EntryKind, Root as Source, Selection, StatCache};
use cata_build::metadata::Mode as Chmod;
use cata_spec::Digest;
use cata_sys::path::Root;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::BuildError;
use crate::error::Kind;

/// Bytes copied at a time.
const CHUNK: usize = 128 * 1024;
/// A file with more holes than this keeps them.
const HOLES: u64 = 1 << 20;
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

/// What a thread copies with.
struct Work<'w> {
    buffer: Vec<u8>,
    /// Set when a file is not what it was when its digest was taken.
    changed: &'w AtomicBool,
    /// Files that were made, and whom to tell at the end.
    made: Vec<(Stat, Digest)>,
    known: Option<&'w Mutex<StatCache>>,
}

impl<'w> Work<'w> {
    fn new(target: &Target<'w>, changed: &'w AtomicBool) -> Self {
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
fn one(
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
fn create(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(parent, name, || rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode)))
}

fn replacing<T>(
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
fn own(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
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
fn xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<bool, Errno> {
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

/// The path by which this process can name an open directory.
pub(super) fn own_path(fd: BorrowedFd<'_>) -> PathBuf {
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&name).unwrap_or_else(|_| PathBuf::from(name))
}
