//! `diff`: what a container has made of its image; what `commit` keeps of it, and what `export` writes.
//!
//! Starting a container makes places in its upper directory for what is mounted there: `/etc/hosts`, the targets
//! of volumes. They are the engine's, not the container's: nobody is shown them, and no image gets them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use cata_image::layer::diff::{self, ChangeKind as UpperKind};
use cata_image::tree::Owners;
use cata_runtime::plan::Root as PlannedRoot;
use cata_sandbox::launch::Isolation;
use cata_sys::mount::{self, Depth, attribute};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::container::inside;
use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::image::image_error;
use crate::record::Record;

/// What every container has mounted; an image need not have the places.
const OWN: [&str; 6] = ["proc", "dev", "sys", "etc/resolv.conf", "etc/hosts", "etc/hostname"];

/// In what way a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// The image has it, otherwise.
    Changed,
    /// The image has it.
    Deleted,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// From the root.
    pub path: PathBuf,
    /// In what way.
    pub kind: ChangeKind,
}

/// All differences, and what of the upper directory is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    pub(crate) list: Vec<Change>,
    /// Relative to the root.
    pub(crate) left_out: HashSet<PathBuf>,
}

impl Engine {
    /// What a container has made of its image, by path.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; what cannot be read.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        Ok(self.differences(&self.find(container)?)?.list)
    }

    pub(crate) fn differences(&self, record: &Record) -> Result<Differences> {
        let upper = self.dir(&record.id).upper();
        let opened = |path: &Path| open_dir(path).map_err(Error::file("open", path));
        let changed = match diff::changes(&upper) {
            Ok(changed) => changed,
            // Never started.
            Err(_) if !upper.exists() => return Ok(Differences::default()),
            Err(error) => return Err(image_error(error.into())),
        };
        let upper = opened(&upper)?;
        let mut places: BTreeSet<PathBuf> = OWN.iter().map(PathBuf::from).collect();
        places.extend(record.mounts.iter().map(|mount| relative(&mount.target)));
        apart(|| differences(&changed, &upper, &lower_tree(&record.image.layers)?, &places))
    }

    /// Whose the files in its upper directory are.
    pub(crate) fn owners_on_disk(&self, record: &Record) -> Owners {
        record.users.as_ref().filter(|users| users.on_disk).map(inside::owners).unwrap_or_default()
    }

    /// Writes a container's files as a tar, without what is mounted in it.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; what cannot be read or written.
    pub fn export(&self, container: &str, to: &mut (dyn Write + Send)) -> Result<u64> {
        let record = self.find(container)?;
        let (status, owner) = self.status(&record.id)?;
        let runs = owner == Owner::Alive && status.pid > 0;
        apart(|| {
            let mut owners = self.owners_on_disk(&record);
            let tree = match self.machine_root(&record)? {
                Some(tree) => tree,
                None if runs && record.request.isolation == Isolation::Process => {
                    owners = record.users.as_ref().map(inside::owners).unwrap_or_default();
                    let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", status.pid));
                    mount::clone_from(&namespace, Path::new("/"), Depth::This)
                        .map_err(internal("look at the root file system"))?
                }
                None => {
                    let _lock = self.lock(&record.id)?;
                    let dir = self.dir(&record.id);
                    overlay(record.image.layers.clone(), Some((dir.upper(), dir.work())))?
                }
            };
            // What is only a path becomes something that can be read.
            let top = rustix::fs::openat(&tree, ".", dir_flags(), Mode::empty());
            let top = top.map_err(internal("open the root file system"))?;
            cata_image::tree::write_contents(top, &owners, to).map_err(image_error)
        })
    }
}

/// In a thread with a mount namespace of its own, which ends with it: before Linux 6.5 layers are mounted over
/// themselves on the way to an overlay, and that must not stay.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cata_sys::namespace::unshare(UnshareFlags::NEWNS).map_err(internal("make a namespace"))?;
            mount::set_propagation(Path::new("/"), attribute::PRIVATE, Depth::Recursive)
                .map_err(internal("make a namespace"))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The layers as one tree, nothing on top.
fn lower_tree(layers: &[PathBuf]) -> Result<OwnedFd> {
    match layers {
        // An overlay without a top needs two.
        [only] => open_dir(only).map_err(Error::file("open", only)),
        _ => overlay(layers.to_vec(), None),
    }
}

fn overlay(lower: Vec<PathBuf>, top: Option<(PathBuf, PathBuf)>) -> Result<OwnedFd> {
    let (upper, work) = top.unzip();
    let root = PlannedRoot::Overlay { lower, upper, work, options: Vec::new(), as_on_disk: true };
    cata_runtime::companion::root_tree(&root)
        .map_err(|text| Error::Runtime(Foreign::new(Kind::Internal, None, &std::io::Error::other(text))))
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn open_dir(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::open(path, dir_flags(), Mode::empty())
}

fn internal(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| {
        let error = std::io::Error::other(format!("{what}: {}", std::io::Error::from(errno)));
        Error::Runtime(Foreign::new(Kind::Internal, None, &error))
    }
}

fn relative(target: &str) -> PathBuf {
    let parts = Path::new(target).components();
    parts.filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// What is at a path of the trees below; links are not followed, for no directory of an upper tree is one.
fn below_at(tree: &OwnedFd, path: &Path) -> Result<Option<Stat>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A link at the end is opened itself; one on the way is none of ours.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let failed = |errno| Error::file("look at", Path::new("/").join(path))(errno);
    let parent = match rustix::fs::openat2(tree, parent, flags | OFlags::DIRECTORY, Mode::empty(), resolve) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let Some(name) = path.file_name() else { return Ok(None) };
    match rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// The names in a directory of the trees below.
fn names_below(tree: &OwnedFd, path: &Path) -> Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt as _;
    let failed = |errno| Error::file("list", Path::new("/").join(path))(errno);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let dir = rustix::fs::openat2(tree, path, dir_flags(), Mode::empty(), resolve).map_err(failed)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(path.join(name));
        }
    }
    Ok(names)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Judges what an upper directory has against the trees below it. `places` are targets of mounts.
///
/// Children come before their parents: a directory that is there only on the way to what is left out is left
/// out as well.
fn differences(
    changed: &[diff::Change],
    upper: &OwnedFd,
    below: &OwnedFd,
    places: &BTreeSet<PathBuf>,
) -> Result<Differences> {
    let mut found: BTreeMap<PathBuf, ChangeKind> = BTreeMap::new();
    let mut left_out = HashSet::new();
    // Directories with something of the container's in them; those in which names came or went.
    let (mut kept, mut renamed): (HashSet<&Path>, HashSet<&Path>) = Default::default();
    let known: HashSet<&Path> = changed.iter().map(|change| change.path.as_path()).collect();
    for change in changed.iter().rev() {
        let path = change.path.as_path();
        let old = below_at(below, path)?;
        let stat = || rustix::fs::statat(upper, path, AtFlags::SYMLINK_NOFOLLOW);
        let kind = match (change.kind, &old) {
            (UpperKind::Removed, None) => None,
            (UpperKind::Removed, Some(_)) => Some(ChangeKind::Deleted),
            (UpperKind::Other, None) => {
                let place = places.contains(path) && stat().is_ok_and(|stat| stat.st_size == 0);
                (!place).then_some(ChangeKind::Added)
            }
            (UpperKind::Other, Some(_)) => Some(ChangeKind::Changed),
            (UpperKind::Directory { .. }, None) => {
                let on_the_way = places.iter().any(|place| place.starts_with(path));
                (!on_the_way || kept.contains(path)).then_some(ChangeKind::Added)
            }
            (UpperKind::Directory { opaque }, Some(old)) if is_dir(old) => {
                if opaque {
                    let gone = names_below(below, path)?.into_iter().filter(|name| !known.contains(&**name));
                    found.extend(gone.map(|name| (name, ChangeKind::Deleted)));
                }
                let other = |new: Stat| {
                    (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid)
                };
                let differs = opaque || renamed.contains(path) || stat().is_ok_and(other);
                if !differs && kept.contains(path) {
                    // Only on the way to what is inside: a layer has it, nobody is told.
                    kept.extend(path.parent());
                    continue;
                }
                differs.then_some(ChangeKind::Changed)
            }
            (UpperKind::Directory { .. }, Some(_)) => Some(ChangeKind::Changed),
        };
        match kind {
            Some(kind) => {
                kept.extend(path.parent());
                if kind != ChangeKind::Changed {
                    renamed.extend(path.parent());
                }
                let _ = found.insert(path.to_owned(), kind);
            }
            None => {
                left_out.insert(path.to_owned());
            }
        }
    }
    let list =
        found.into_iter().map(|(path, kind)| Change { path: Path::new("/").join(path), kind }).collect();
    Ok(Differences { list, left_out })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn places_of_mounts_are_no_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir_all(lower.join("bin")).unwrap();
        fs::create_dir_all(lower.join("same/deep")).unwrap();
        fs::write(lower.join("etc/passwd"), "root").unwrap();
        fs::write(lower.join("same/deep/file"), "old").unwrap();
        symlink("bin", lower.join("link")).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(upper.join("data/sub")).unwrap();
        fs::create_dir_all(upper.join("vol")).unwrap();
        fs::create_dir_all(upper.join("same/deep")).unwrap();
        fs::create_dir_all(upper.join("link")).unwrap();
        fs::create_dir_all(upper.join("bin")).unwrap();
        fs::set_permissions(upper.join("bin"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "written").unwrap();
        fs::write(upper.join("vol/own"), "").unwrap();
        fs::write(upper.join("same/deep/file"), "new").unwrap();
        fs::write(upper.join("link/file"), "").unwrap();
        let changed = diff::changes(&upper).unwrap();
        let places = ["etc/hosts", "etc/hostname", "data/sub", "vol"].map(PathBuf::from).into();
        let (upper, lower) = (open_dir(&upper).unwrap(), open_dir(&lower).unwrap());
        let Differences { list, left_out } = differences(&changed, &upper, &lower, &places).unwrap();
        let shown: Vec<String> =
            list.iter().map(|change| format!("{:?} {}", change.kind, change.path.display())).collect();
        let wanted = [
            "Changed /bin",
            "Changed /etc",
            "Added /etc/hostname",
            "Changed /link",
            "Added /link/file",
            "Changed /same/deep/file",
            "Added /vol",
            "Added /vol/own",
        ];
        assert_eq!(shown, wanted);
        let mut left_out: Vec<_> = left_out.iter().map(|path| path.to_str().unwrap()).collect();
        left_out.sort_unstable();
        assert_eq!(left_out, ["data", "data/sub", "etc/hosts"]);
    }
}
