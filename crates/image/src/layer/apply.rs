//! A tar stream becomes a directory in overlay's form: the later of two entries wins, whiteouts become 0:0
//! devices and opaque marks, and nothing is ever made outside.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::header::Kind;
use super::place::{self, Existing, Place, os};
use super::reader::{Entry, Reader};
use super::whiteout::{self, Meaning};
use crate::error::LayerError;
use crate::layer::owners::Owners;

/// Names longer than the kernel's own limit are refused before anything is made.
const PATH_MAX: usize = 4096;

/// What an applied layer amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// Bytes of regular files.
    pub(crate) size: u64,
    /// Entries read.
    pub(crate) entries: u64,
}

/// Applies the stream to `dir`, which is empty, and reads it to its end.
pub(crate) fn apply(input: impl BufRead, dir: &Path) -> Result<Applied, LayerError> {
    let place = Place::open(dir).map_err(|errno| LayerError::entry(b"./", errno))?;
    let mut work = Apply { reader: Reader::new(input), place, directory_times: BTreeMap::new(), plain: None };
    let mut applied = Applied::default();
    while let Some(entry) = work.reader.next_entry()? {
        applied.entries += 1;
        applied.size += if entry.kind == Kind::File { entry.size() } else { 0 };
        work.entry(&entry)?;
    }
    work.set_directory_times();
    work.reader.drain()?;
    Ok(applied)
}

/// How a plain tree is unpacked over what is there already.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    /// In which directory of the place, in normal form.
    pub(crate) base: Vec<u8>,
    /// Who owns everything; `None`: whom the stream says. An owner that is not the stream's gets neither
    /// setuid programs nor device nodes.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whose the stream's ids are in the place.
    pub(crate) owners: Owners,
    /// Device nodes left out.
    pub(crate) left_out: u64,
}

/// Unpacks a plain tree into `place`: names mean nothing but themselves, directories are merged, and nothing
/// turns into a directory or out of one. Reads the stream to its end.
pub(crate) fn apply_tree(
    input: impl BufRead,
    place: Place,
    plain: Plain,
) -> Result<(Applied, Plain), LayerError> {
    let reader = Reader::new(input);
    let mut work = Apply { reader, place, directory_times: BTreeMap::new(), plain: Some(plain) };
    let mut applied = Applied::default();
    while let Some(mut entry) = work.reader.next_entry()? {
        applied.entries += 1;
        applied.size += if entry.kind == Kind::File { entry.size() } else { 0 };
        if let Some((uid, gid)) = work.plain.as_ref().and_then(|plain| plain.owner) {
            (entry.uid, entry.gid, entry.mode) = (uid, gid, entry.mode & 0o1777);
            entry.xattrs.retain(|(name, _)| name != b"security.capability");
        }
        if let Some(plain) = &work.plain {
            let mapped = plain.owners.outside(entry.uid, entry.gid);
            (entry.uid, entry.gid) =
                mapped.ok_or_else(|| LayerError::source(&entry.path, Errno::OVERFLOW))?;
        }
        work.entry(&entry)?;
    }
    work.set_directory_times();
    work.reader.drain()?;
    Ok((applied, work.plain.unwrap_or_default()))
}

/// Unpacks an archive that is no layer (a build context), compressed or not, into an empty directory.
///
/// # Errors
/// It is damaged or hostile; no space.
pub fn unpack_archive(archive: &mut dyn std::io::Read, dir: &Path) -> Result<(), crate::Error> {
    let buffered = std::io::BufReader::with_capacity(256 * 1024, archive);
    let decoder = super::compression::Decoder::new(buffered).map_err(super::sparse::read_error)?;
    let place = Place::open(dir).map_err(|errno| LayerError::entry(b"./", errno))?;
    apply_tree(std::io::BufReader::with_capacity(256 * 1024, decoder), place, Plain::default())?;
    Ok(())
}

/// Reads every entry as [`apply`](fn@apply) would and makes nothing: the parsers' entry point for fuzzing.
///
/// # Errors
/// Whatever is wrong with the stream.
pub fn apply_to_null(input: impl BufRead) -> Result<u64, LayerError> {
    let mut reader = Reader::new(input);
    let mut count = 0;
    while let Some(entry) = reader.next_entry()? {
        let path = normal(&entry.path, &entry.path)?;
        whiteout::read(split(&path).1)?;
        if entry.kind == Kind::HardLink {
            normal(&entry.link, &entry.path)?;
        }
        count += 1;
    }
    Ok(count)
}

/// The path without `.`, `..` and doubled slashes, relative to the layer's root; a leading slash means that
/// root, as for every other engine. `entry` is named when it climbs out.
pub(crate) fn normal(path: &[u8], entry: &[u8]) -> Result<Vec<u8>, LayerError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts
                    .pop()
                    .ok_or_else(|| LayerError::Escapes(String::from_utf8_lossy(entry).into_owned()))?;
            }
            part => parts.push(part),
        }
    }
    let path = parts.join(&b'/');
    if path.len() >= PATH_MAX { Err(LayerError::malformed(entry, "name too long")) } else { Ok(path) }
}

/// A normal path beneath another one.
fn beneath(base: &[u8], path: &[u8]) -> Vec<u8> {
    match (base, path) {
        (b"", path) => path.to_vec(),
        (base, b"") => base.to_vec(),
        (base, path) => [base, b"/", path].concat(),
    }
}

/// Directory and last part of a normal path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

struct Apply<R> {
    reader: Reader<R>,
    place: Place,
    /// Set last, for making something in a directory changes its time.
    directory_times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// A tree and not a layer.
    plain: Option<Plain>,
}

impl<R: BufRead> Apply<R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let mut path = normal(&entry.path, &entry.path)?;
        if let Some(plain) = &mut self.plain {
            let device = matches!(entry.kind, Kind::CharacterDevice | Kind::BlockDevice);
            if device && plain.owner.is_some() {
                plain.left_out += 1;
                return Ok(());
            }
            if path.is_empty() {
                // Where it all goes: it is there, and stays as it is.
                return Ok(());
            }
            path = beneath(&plain.base, &path);
        }
        if path.is_empty() {
            return self.root(entry);
        }
        let (directory, name) = split(&path);
        if self.plain.is_none() && split(directory).1.starts_with(b".wh..wh.") {
            return Ok(());
        }
        let meaning = if self.plain.is_some() { Meaning::Plain } else { whiteout::read(name)? };
        if meaning == Meaning::Ignored {
            return Ok(());
        }
        let failed = |errno: Errno| LayerError::entry(&entry.path, errno);
        let parent = self.place.directory(directory, true, &entry.path)?;
        let parent = parent.as_fd();
        match meaning {
            Meaning::Opaque => {
                let opened = if directory.is_empty() {
                    place::set_opaque(self.place.root())
                } else {
                    // The parent's own descriptor is a path only; attributes need a real one.
                    place::open_beside(parent, b".").and_then(|fd| place::set_opaque(fd.as_fd()))
                };
                return opened.map_err(failed);
            }
            Meaning::Gone(gone) => return hide(parent, gone).map_err(failed),
            Meaning::Plain | Meaning::Ignored => {}
        }
        match entry.kind {
            Kind::Directory => self.directory(entry, parent, name, &path)?,
            Kind::File => self.file(entry, parent, name)?,
            Kind::HardLink => self.hard_link(entry, parent, name, &path)?,
            Kind::SymLink => {
                let target = os(&entry.link);
                if entry.link.is_empty() {
                    return Err(LayerError::malformed(&entry.path, "symbolic link to nothing"));
                }
                self.replace(parent, name, || rustix::fs::symlinkat(target, parent, os(name)))
                    .map_err(failed)?;
                finish_beside(entry, parent, name)?;
            }
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => self.node(entry, parent, name)?,
            Kind::Sparse | Kind::PaxLocal | Kind::PaxGlobal | Kind::LongName | Kind::LongLink => {}
        }
        if entry.kind != Kind::Directory {
            self.directory_times.remove(&path);
        }
        Ok(())
    }

    /// `./`: the layer's own root.
    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            return Err(LayerError::malformed(&entry.path, "the root of a layer must be a directory"));
        }
        own_directory(entry, self.place.root())?;
        self.directory_times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::entry(&entry.path, errno);
        let mut fresh = true;
        match place::mkdir(parent, name, entry.mode, false) {
            Ok(()) => {}
            Err(Errno::EXIST) => match place::existing(parent, name).map_err(failed)? {
                Existing::Directory => fresh = false,
                _ if self.plain.is_some() => return Err(LayerError::entry(&entry.path, Errno::NOTDIR)),
                // What stood here hid what lower layers have of that name; so must what takes its place.
                Existing::Whiteout | Existing::Other => {
                    self.place.remove(parent, name).map_err(failed)?;
                    place::mkdir(parent, name, entry.mode, true).map_err(failed)?;
                }
            },
            Err(errno) => return Err(failed(errno)),
        }
        let plain = entry.mode & (0o7000 | place::umask()) == 0 && entry.uid == 0 && entry.gid == 0;
        if !(fresh && plain && entry.xattrs.is_empty()) {
            own_directory(entry, place::open_beside(parent, name).map_err(failed)?.as_fd())?;
        }
        self.directory_times.insert(path.to_owned(), entry.mtime);
        Ok(())
    }

    fn file(&mut self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
        let failed = |errno: Errno| LayerError::entry(&entry.path, errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = self
            .replace(parent, name, || rustix::fs::openat(parent, os(name), flags, mode))
            .map_err(failed)?;
        let file = file.as_fd();
        match &entry.sparse {
            None => self.copy(entry, file, 0, entry.stored)?,
            Some(map) => {
                rustix::fs::ftruncate(file, map.real_size).map_err(failed)?;
                for (offset, length) in &map.pieces {
                    self.copy(entry, file, *offset, *length)?;
                }
            }
        }
        let owned = entry.uid != 0 || entry.gid != 0;
        if owned {
            let (uid, gid) = place::owner(entry.uid, entry.gid);
            rustix::fs::fchown(file, uid, gid).map_err(failed)?;
        }
        // After the owner: changing that takes setuid bits and capabilities away.
        if entry.mode & (0o7000 | place::umask()) != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        }
        for (attribute, value) in wanted(&entry.xattrs) {
            let set = rustix::fs::fsetxattr(file, os(attribute), value, XattrFlags::empty());
            tolerate(attribute, set).map_err(failed)?;
        }
        rustix::fs::futimens(file, &place::times(entry.mtime)).map_err(failed)
    }

    /// Content from the stream into a file.
    fn copy(
        &mut self,
        entry: &Entry,
        file: BorrowedFd<'_>,
        mut at: u64,
        length: u64,
    ) -> Result<(), LayerError> {
        let end = at + length;
        while at < end {
            let piece = self.reader.content()?;
            let take = piece.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            if take == 0 {
                return Err(LayerError::Truncated);
            }
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &piece[..take], at))
                .map_err(|errno| LayerError::entry(&entry.path, errno))?;
            self.reader.consume(written);
            at += written as u64;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let mut target = normal(&entry.link, &entry.path)?;
        if let Some(plain) = &self.plain {
            target = beneath(&plain.base, &target);
        }
        let missing =
            || LayerError::malformed(&entry.path, "hard link to something that is not in the layer");
        if target.is_empty() || target == path {
            return Err(missing());
        }
        let (directory, target_name) = split(&target);
        let from = match self.place.directory(directory, false, &entry.path) {
            Err(LayerError::Entry { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing());
            }
            other => other?,
        };
        let link = || rustix::fs::linkat(from.as_fd(), os(target_name), parent, os(name), AtFlags::empty());
        match self.replace(parent, name, link) {
            Err(Errno::NOENT) => Err(missing()),
            Err(Errno::PERM) => Err(LayerError::malformed(&entry.path, "hard link to a directory")),
            other => other.map_err(|errno| LayerError::entry(&entry.path, errno)),
        }
    }

    fn node(&mut self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
        let kind = match entry.kind {
            Kind::CharacterDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind == FileType::CharacterDevice && entry.major == 0 && entry.minor == 0 {
            return Err(LayerError::malformed(&entry.path, "device 0:0 is overlay's own mark"));
        }
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        match self.replace(parent, name, || rustix::fs::mknodat(parent, os(name), kind, mode, device)) {
            // Devices are the host's root's to make. Nobody else could use this one: a container's `/dev` is its own.
            Err(Errno::PERM) if kind != FileType::Fifo && !cata_sys::namespace::is_first_of_users() => {
                self.plain.iter_mut().for_each(|plain| plain.left_out += 1);
                return Ok(());
            }
            made => made.map_err(|errno| LayerError::entry(&entry.path, errno))?,
        }
        finish_beside(entry, parent, name)?;
        if entry.mode & (0o7000 | place::umask()) != 0 {
            rustix::fs::chmodat(parent, os(name), Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|errno| LayerError::entry(&entry.path, errno))?;
        }
        Ok(())
    }

    /// Makes something that must not exist yet; what is in its way goes.
    fn replace<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST)
                if self.plain.is_some() && place::existing(parent, name)? == Existing::Directory =>
            {
                Err(Errno::ISDIR)
            }
            Err(Errno::EXIST) => {
                self.place.remove(parent, name)?;
                make()
            }
            other => other,
        }
    }

    fn set_directory_times(&mut self) {
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            // One that an entry replaced meanwhile is no longer there: nothing to set.
            if path.is_empty() {
                let _ = rustix::fs::futimens(self.place.root(), &place::times(mtime));
                continue;
            }
            let (directory, name) = split(&path);
            if let Ok(parent) = self.place.directory(directory, false, &path) {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let _ = rustix::fs::utimensat(parent.as_fd(), os(name), &place::times(mtime), flags);
            }
        }
    }
}

/// `.wh.NAME`. What this very layer has under that name stays, and hides by itself.
fn hide(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match place::make_whiteout(parent, name) {
        Err(Errno::EXIST) if place::existing(parent, name)? == Existing::Directory => {
            place::set_opaque(place::open_beside(parent, name)?.as_fd())
        }
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Owner, mode and attributes of a directory.
fn own_directory(entry: &Entry, directory: BorrowedFd<'_>) -> Result<(), LayerError> {
    let failed = |errno: Errno| LayerError::entry(&entry.path, errno);
    let (uid, gid) = place::owner(entry.uid, entry.gid);
    rustix::fs::fchown(directory, uid, gid).map_err(failed)?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
    for (attribute, value) in wanted(&entry.xattrs) {
        let set = rustix::fs::fsetxattr(directory, os(attribute), value, XattrFlags::empty());
        tolerate(attribute, set).map_err(failed)?;
    }
    Ok(())
}

/// Owner, attributes and time of what cannot be opened.
fn finish_beside(entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
    let failed = |errno: Errno| LayerError::entry(&entry.path, errno);
    if entry.uid != 0 || entry.gid != 0 {
        let (uid, gid) = place::owner(entry.uid, entry.gid);
        rustix::fs::chownat(parent, os(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    }
    if wanted(&entry.xattrs).next().is_some() {
        // The parent is open as a path only, which /proc/self/fd resolves like any other.
        for (attribute, value) in wanted(&entry.xattrs) {
            tolerate(attribute, place::set_xattr_beside(parent, name, attribute, value)).map_err(failed)?;
        }
    }
    rustix::fs::utimensat(parent, os(name), &place::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)
}

/// Overlay's own attributes are not a layer's to set: they would redirect it into other layers.
fn wanted(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(|(name, _)| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."))
}

/// File capabilities must hold; labels that this host does not know may be lost, as for other engines.
fn tolerate(attribute: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if attribute != b"security.capability" => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
