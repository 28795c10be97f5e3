//! An overlay's upper directory becomes a layer: what was added or changed as it is, what was removed as
//! whiteouts, what hides all below it as opaque marks.
//!
//! The order is fixed: parents before children, names by their bytes. The first of several hard links (in
//! that order) carries the content. So equal directories give equal bytes, and equal digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::header::BLOCK;
use super::header_out::{Head, pad, write};
use super::place::os;
use crate::error::LayerError;
use crate::layer::owners::Owners;

/// Longer than any path that could be unpacked again.
const PATH_MAX: usize = 4096;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;
/// Holes that are worth a sparse entry.
const HOLES_MIN: u64 = 1 << 20;
/// More pieces than this are written as one.
const PIECES_MAX: usize = 1 << 16;

/// What a written layer amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes of regular files.
    pub size: u64,
    /// Entries; 0: nothing was changed.
    pub entries: u64,
}

/// Something that an upper directory changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the root.
    pub path: PathBuf,
    /// In what way.
    pub kind: ChangeKind,
}

/// In what way an upper directory changes a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is gone.
    Removed,
    /// A directory of lower layers, or a new one.
    Directory {
        /// Whether it hides what lower layers have in it.
        opaque: bool,
    },
    /// Anything else: new, or instead of what lower layers have.
    Other,
}

/// Lists what an upper directory changes, in the order in which [`write_layer`] writes it.
///
/// # Errors
/// The directory cannot be read, or holds overlay's redirects.
pub fn changes(upper: &Path) -> Result<Vec<Change>, LayerError> {
    let mut list = Vec::new();
    walk(upper, &mut |item| {
        let kind = match item.kind {
            Kind::Whiteout => ChangeKind::Removed,
            Kind::Directory { opaque } => ChangeKind::Directory { opaque },
            Kind::Other => ChangeKind::Other,
        };
        list.push(Change { path: PathBuf::from(os(item.path)), kind });
        Ok(())
    })?;
    Ok(list)
}

/// Whether an upper directory changes nothing. Looks no further than it must.
///
/// # Errors
/// As [`changes`].
pub fn is_empty(upper: &Path) -> Result<bool, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno: Errno| LayerError::source(b"/", errno);
    let fd = rustix::fs::open(upper, flags, Mode::empty()).map_err(failed)?;
    for name in names_of(&fd, b"")? {
        let stat = rustix::fs::statat(&fd, os(&name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        // Sockets are not carried by layers.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes an upper directory as a plain tar.
///
/// # Errors
/// [`LayerError::Source`] names what cannot be read; [`LayerError::Write`].
pub fn write_layer(upper: &Path, to: &mut dyn Write) -> Result<Written, LayerError> {
    write_layer_without(upper, &|_| false, &Owners::default(), to)
}

/// As [`write_layer`], for the ids that files belong to "inside", without what `left_out` says of paths relative to the root. Of a directory that is left
/// out, what is in it must be too.
///
/// # Errors
/// As [`write_layer`].
pub fn write_layer_without(
    upper: &Path,
    left_out: &dyn Fn(&Path) -> bool,
    owners: &Owners,
    to: &mut dyn Write,
) -> Result<Written, LayerError> {
    let mut writer = Writer {
        to,
        owners: owners.clone(),
        links: HashMap::new(),
        buffer: vec![0; CHUNK],
        written: Written::default(),
    };
    walk(upper, &mut |item| {
        if left_out(Path::new(os(item.path))) { Ok(()) } else { writer.item(item) }
    })?;
    let Writer { to, written, .. } = writer;
    to.write_all(&[0; 2 * BLOCK]).and_then(|()| to.flush()).map_err(LayerError::Write)?;
    Ok(written)
}

/// Writes what is at `name` beneath `parent` (not followed) as a plain tar in which it is called `called`, with
/// everything in it, as it is: nothing means a removal.
///
/// # Errors
/// As [`write_layer`].
pub(crate) fn write_tree(
    parent: BorrowedFd<'_>,
    name: &[u8],
    called: &[u8],
    owners: &Owners,
    to: &mut dyn Write,
) -> Result<Written, LayerError> {
    let mut writer = Writer {
        to,
        owners: owners.clone(),
        links: HashMap::new(),
        buffer: vec![0; CHUNK],
        written: Written::default(),
    };
    let failed = |errno: Errno| LayerError::source(called, errno);
    let stat = rustix::fs::statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let item = |kind, xattrs| Item { path: called, name, parent, stat, kind, xattrs };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(parent, os(name), flags, Mode::empty()).map_err(failed)?;
        let kept = xattrs(fd.as_fd(), called)?.kept;
        writer.item(item(Kind::Directory { opaque: false }, Some(kept)))?;
        walk_from(fd, called.to_vec(), Sense::Tree, &mut |item| writer.item(item))?;
    } else {
        writer.item(item(Kind::Other, None))?;
    }
    let Writer { to, written, .. } = writer;
    to.write_all(&[0; 2 * BLOCK]).and_then(|()| to.flush()).map_err(LayerError::Write)?;
    Ok(written)
}

/// Writes everything in an open directory as a plain tar, the directory itself not.
///
/// # Errors
/// As [`write_layer`].
pub(crate) fn write_contents(
    dir: OwnedFd,
    owners: &Owners,
    to: &mut dyn Write,
) -> Result<Written, LayerError> {
    let mut writer = Writer {
        to,
        owners: owners.clone(),
        links: HashMap::new(),
        buffer: vec![0; CHUNK],
        written: Written::default(),
    };
    walk_from(dir, Vec::new(), Sense::Tree, &mut |item| writer.item(item))?;
    let Writer { to, written, .. } = writer;
    to.write_all(&[0; 2 * BLOCK]).and_then(|()| to.flush()).map_err(LayerError::Write)?;
    Ok(written)
}

/// What names and devices say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sense {
    /// An upper directory's: some mean that something is gone.
    Layer,
    /// Nothing but what they are.
    Tree,
}

/// One thing found.
pub(super) struct Item<'i> {
    pub(super) path: &'i [u8],
    pub(super) name: &'i [u8],
    pub(super) parent: BorrowedFd<'i>,
    pub(super) stat: Stat,
    pub(super) kind: Kind,
    /// Read already where the walk needed them.
    pub(super) xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whiteout,
    Directory { opaque: bool },
    Other,
}

/// A directory under way: itself, its path, the names still to come (last first).
struct Level {
    fd: OwnedFd,
    path: Vec<u8>,
    names: Vec<Vec<u8>>,
}

/// Walks in the fixed order. Nothing is followed: names and links are a stranger's.
pub(super) fn walk(
    upper: &Path,
    visit: &mut dyn FnMut(Item<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno: Errno| LayerError::source(b"/", errno);
    let fd = rustix::fs::open(upper, flags, Mode::empty()).map_err(failed)?;
    walk_from(fd, Vec::new(), Sense::Layer, visit)
}

/// As [`walk`], from an open directory that is called `path`.
fn walk_from(
    fd: OwnedFd,
    path: Vec<u8>,
    sense: Sense,
    visit: &mut dyn FnMut(Item<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = names_of(&fd, &path)?;
    let mut levels = vec![Level { fd, path, names }];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if path.len() >= PATH_MAX {
            return Err(LayerError::malformed(&path[..200], "name too long"));
        }
        let failed = |errno: Errno| LayerError::source(&path, errno);
        let stat = match rustix::fs::statat(&level.fd, os(&name), AtFlags::SYMLINK_NOFOLLOW) {
            // Removed meanwhile by whoever still works there.
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed)?,
        };
        let parent = level.fd.as_fd();
        let (kind, xattrs, opened) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 && sense == Sense::Layer => {
                (Kind::Whiteout, None, None)
            }
            FileType::Directory => {
                let flags = flags | OFlags::NOFOLLOW;
                let fd = rustix::fs::openat(parent, os(&name), flags, Mode::empty()).map_err(failed)?;
                let all = xattrs(fd.as_fd(), &path)?;
                (Kind::Directory { opaque: all.opaque }, Some(all.kept), Some(fd))
            }
            // They exist only while somebody listens.
            FileType::Socket => continue,
            _ => (Kind::Other, None, None),
        };
        if name.starts_with(b".wh.") && sense == Sense::Layer {
            return Err(LayerError::malformed(
                &path,
                "a name that begins with `.wh.` means a removal in layers",
            ));
        }
        visit(Item { path: &path, name: &name, parent, stat, kind, xattrs })?;
        if let Some(fd) = opened {
            let names = names_of(&fd, &path)?;
            levels.push(Level { fd, path, names });
        }
    }
    Ok(())
}

fn names_of(fd: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
    names(fd).map_err(|errno| LayerError::source(path, errno))
}

/// The names in a directory, in reverse order.
fn names(fd: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

struct Writer<'w> {
    to: &'w mut dyn Write,
    owners: Owners,
    /// Where a file with several names was written.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    written: Written,
}

impl Writer<'_> {
    fn item(&mut self, item: Item<'_>) -> Result<(), LayerError> {
        self.written.entries += 1;
        let stat = &item.stat;
        let (uid, gid) = self.owners.inside(stat.st_uid, stat.st_gid);
        let mut head = Head {
            path: item.path,
            kind: b'0',
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            size: 0,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            link: b"",
            device: (0, 0),
            xattrs: &[],
            sparse: None,
        };
        let marker;
        match item.kind {
            Kind::Whiteout => {
                marker = beside(item.path, item.name, &[b".wh.", item.name].concat());
                let head = Head { path: &marker, mode: 0, uid: 0, gid: 0, mtime: (0, 0), ..head };
                return write(self.to, &head).map_err(LayerError::Write);
            }
            Kind::Directory { opaque } => {
                let path = [item.path, b"/"].concat();
                let kept = item.xattrs.unwrap_or_default();
                let head = Head { path: &path, kind: b'5', xattrs: &kept, ..head };
                write(self.to, &head).map_err(LayerError::Write)?;
                if opaque {
                    let marker = [item.path, b"/.wh..wh..opq"].concat();
                    let head = Head {
                        path: &marker,
                        kind: b'0',
                        mode: 0,
                        uid: 0,
                        gid: 0,
                        mtime: (0, 0),
                        xattrs: &[],
                        ..head
                    };
                    write(self.to, &head).map_err(LayerError::Write)?;
                }
                return Ok(());
            }
            Kind::Other => {}
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let head = Head { kind: b'1', link: first, ..head };
                return write(self.to, &head).map_err(LayerError::Write);
            }
            self.links.insert(key, item.path.to_vec());
        }
        let failed = |errno: Errno| LayerError::source(item.path, errno);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(&item, head),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(item.parent, os(item.name), Vec::new()).map_err(failed)?;
                let kept = xattrs_beside(&item)?;
                let head = Head { kind: b'2', mode: 0o777, link: target.to_bytes(), xattrs: &kept, ..head };
                return write(self.to, &head).map_err(LayerError::Write);
            }
            FileType::CharacterDevice => head.kind = b'3',
            FileType::BlockDevice => head.kind = b'4',
            FileType::Fifo => head.kind = b'6',
            _ => return Err(LayerError::malformed(item.path, "unknown type of file")),
        }
        head.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kept = xattrs_beside(&item)?;
        write(self.to, &Head { xattrs: &kept, ..head }).map_err(LayerError::Write)
    }

    fn file(&mut self, item: &Item<'_>, head: Head<'_>) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::source(item.path, errno);
        // Not to hang on a pipe that somebody put there meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(item.parent, os(item.name), flags, Mode::empty()).map_err(failed)?;
        let kept = xattrs(file.as_fd(), item.path)?.kept;
        let size = u64::try_from(item.stat.st_size).unwrap_or(0);
        self.written.size += size;
        if let Some(pieces) = holes(&file, &item.stat, size).map_err(failed)? {
            return self.sparse(item, &File::from(file), &Head { xattrs: &kept, ..head }, &pieces, size);
        }
        write(self.to, &Head { size, xattrs: &kept, ..head }).map_err(LayerError::Write)?;
        self.copy(item.path, &File::from(file), 0, size)?;
        pad(self.to, size).map_err(LayerError::Write)
    }

    /// GNU's sparse form 1.0: the map as decimal lines in front of the data.
    fn sparse(
        &mut self,
        item: &Item<'_>,
        file: &File,
        head: &Head<'_>,
        pieces: &[(u64, u64)],
        size: u64,
    ) -> Result<(), LayerError> {
        let mut map = format!("{}\n", pieces.len());
        for (offset, length) in pieces {
            map.push_str(&format!("{offset}\n{length}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let data: u64 = pieces.iter().map(|(_, length)| length).sum();
        let head = Head { size: map.len() as u64 + data, sparse: Some(size), ..*head };
        write(self.to, &head).map_err(LayerError::Write)?;
        self.to.write_all(&map).map_err(LayerError::Write)?;
        for (offset, length) in pieces {
            self.copy(item.path, file, *offset, *length)?;
        }
        pad(self.to, data).map_err(LayerError::Write)
    }

    fn copy(&mut self, path: &[u8], file: &File, mut at: u64, length: u64) -> Result<(), LayerError> {
        let end = at + length;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..most], at))
                .map_err(|errno| LayerError::source(path, errno))?;
            if read == 0 {
                return Err(LayerError::malformed(path, "it became shorter while it was read"));
            }
            self.to.write_all(&self.buffer[..read]).map_err(LayerError::Write)?;
            at += read as u64;
        }
        Ok(())
    }
}

/// Where a file with holes has data; `None`: it is not worth the trouble.
pub(super) fn holes(file: &OwnedFd, stat: &Stat, size: u64) -> Result<Option<Vec<(u64, u64)>>, Errno> {
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if size > stored + HOLES_MIN { pieces(file, size) } else { Ok(None) }
}

/// Where a file has data; `None` if the file system cannot tell, or there are too many pieces.
fn pieces(file: &OwnedFd, size: u64) -> Result<Option<Vec<(u64, u64)>>, Errno> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if end <= start || pieces.len() >= PIECES_MAX {
            return Ok(None);
        }
        pieces.push((start, end - start));
        at = end;
    }
    if pieces.last().is_none_or(|(offset, length)| offset + length < size) {
        // GNU tar marks the end of a file that ends in a hole so.
        pieces.push((size, 0));
    }
    Ok(Some(pieces))
}

/// Another name in the directory of `path`.
fn beside(path: &[u8], name: &[u8], other: &[u8]) -> Vec<u8> {
    [&path[..path.len() - name.len()], other].concat()
}

/// Extended attributes of one thing.
#[derive(Default)]
pub(super) struct Xattrs {
    pub(super) opaque: bool,
    pub(super) kept: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Xattrs {
    /// Those a layer carries; overlay's own say what the directory means.
    fn take(&mut self, path: &[u8], name: &[u8], value: Vec<u8>) -> Result<(), LayerError> {
        if let Some(own) = name.strip_prefix(super::place::overlays_own().as_bytes()) {
            match own {
                b"opaque" => self.opaque = value == b"y",
                b"redirect" | b"metacopy" => {
                    return Err(LayerError::malformed(
                        path,
                        "overlay keeps it as a reference to another place (redirect_dir or metacopy)",
                    ));
                }
                _ => {}
            }
            return Ok(());
        }
        match name {
            _ if name == b"security.capability" || name.starts_with(b"user.") => {
                self.kept.push((name.to_vec(), value));
            }
            // Labels, keys and checksums of this host, and access lists that name its users.
            _ => {}
        }
        Ok(())
    }

    fn sorted(mut self) -> Self {
        self.kept.sort();
        self
    }
}

/// Those of an open file or directory.
pub(super) fn xattrs(fd: BorrowedFd<'_>, path: &[u8]) -> Result<Xattrs, LayerError> {
    let failed = |errno: Errno| LayerError::source(path, errno);
    let mut found = Xattrs::default();
    let list = grown(|space| rustix::fs::flistxattr(fd, space)).map_err(failed)?;
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = grown(|space| rustix::fs::fgetxattr(fd, os(name), space)).map_err(failed)?;
        found.take(path, name, value)?;
    }
    Ok(found.sorted())
}

/// Those of what cannot be opened.
pub(super) fn xattrs_beside(item: &Item<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>, LayerError> {
    let failed = |errno: Errno| LayerError::source(item.path, errno);
    let place = [format!("/proc/self/fd/{}/", item.parent.as_raw_fd()).as_bytes(), item.name].concat();
    let mut found = Xattrs::default();
    let list = grown(|space| rustix::fs::llistxattr(os(&place), space)).map_err(failed)?;
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = grown(|space| rustix::fs::lgetxattr(os(&place), os(name), space)).map_err(failed)?;
        found.take(item.path, name, value)?;
    }
    Ok(found.sorted().kept)
}

/// Calls with more space until the answer fits. A file system without attributes has none.
fn grown(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut space = vec![0; 256];
    loop {
        match call(&mut space) {
            Ok(length) => {
                space.truncate(length);
                return Ok(space);
            }
            Err(Errno::RANGE) if space.len() < 1 << 17 => space.resize(space.len() * 4, 0),
            // Taken away between the list and the question.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;
