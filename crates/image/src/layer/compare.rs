//! Whether an unpacked layer still is what its blob says: two trees side by side.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cata_spec::Digest;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::diff::{Item, Kind, walk, xattrs, xattrs_beside};
use super::place::os;
use crate::error::LayerError;
use crate::store::hash_file;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the root.
    pub path: PathBuf,
    /// In what way.
    pub what: &'static str,
}

/// Everything of a file that a layer carries, but for when it was changed: directories that no entry names have
/// no time of their own.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: FactKind,
    mode: u32,
    owner: (u32, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum FactKind {
    Whiteout,
    Directory { opaque: bool },
    File(Digest),
    Link(Vec<u8>),
    Special(FileType, u64),
}

/// What a tree has, by path.
type Inventory = BTreeMap<Vec<u8>, Facts>;

/// The first thing, in the order of paths, that `found` has otherwise than `meant`, and how many files were compared.
///
/// # Errors
/// One of the two cannot be read.
pub(crate) fn first_difference(meant: &Path, found: &Path) -> Result<(Option<Difference>, u64), LayerError> {
    let (meant, found) = std::thread::scope(|scope| {
        let meant = scope.spawn(|| inventory(meant));
        let found = inventory(found);
        (meant.join().unwrap_or(Err(LayerError::Truncated)), found)
    });
    let (meant, found) = (meant?, found?);
    Ok((difference(&meant, &found), meant.len() as u64))
}

/// PURE: see [`first_difference`].
fn difference(meant: &Inventory, found: &Inventory) -> Option<Difference> {
    let differs = |path: &Vec<u8>| match (meant.get(path), found.get(path)) {
        (Some(_), None) => Some("is missing"),
        (None, Some(_)) => Some("is not of the layer"),
        (Some(meant), Some(found)) => meant.differs(found),
        (None, None) => None,
    };
    let mut paths: Vec<&Vec<u8>> = meant.keys().chain(found.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let found = paths.into_iter().find_map(|path| Some((path, differs(path)?)));
    found.map(|(path, what)| Difference { path: PathBuf::from(os(path)), what })
}

impl Facts {
    /// PURE: in what way the other one is not the same.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        match (&self.kind, &other.kind) {
            (one, same) if one == same => {}
            (FactKind::File(_), FactKind::File(_)) => return Some("has other content"),
            (FactKind::Link(_), FactKind::Link(_)) => return Some("leads elsewhere"),
            _ => return Some("is of another type"),
        }
        if self.owner != other.owner {
            return Some("has another owner");
        }
        if self.mode != other.mode {
            return Some("has another mode");
        }
        (self.xattrs != other.xattrs).then_some("has other attributes")
    }
}

fn inventory(dir: &Path) -> Result<Inventory, LayerError> {
    let mut all = Inventory::new();
    walk(dir, &mut |item| {
        let facts = facts(&item)?;
        all.insert(item.path.to_vec(), facts);
        Ok(())
    })?;
    Ok(all)
}

fn facts(item: &Item<'_>) -> Result<Facts, LayerError> {
    let failed = |errno: Errno| LayerError::source(item.path, errno);
    let mut facts = Facts {
        kind: FactKind::Whiteout,
        mode: item.stat.st_mode & 0o7777,
        owner: (item.stat.st_uid, item.stat.st_gid),
        xattrs: Vec::new(),
    };
    (facts.kind, facts.xattrs) = match (item.kind, FileType::from_raw_mode(item.stat.st_mode)) {
        // Who it belongs to means nothing.
        (Kind::Whiteout, _) => {
            facts.owner = (0, 0);
            facts.mode = 0;
            (FactKind::Whiteout, Vec::new())
        }
        (Kind::Directory { opaque }, _) => {
            (FactKind::Directory { opaque }, item.xattrs.clone().unwrap_or_default())
        }
        (Kind::Other, FileType::RegularFile) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file =
                rustix::fs::openat(item.parent, os(item.name), flags, Mode::empty()).map_err(failed)?;
            let kept = xattrs(file.as_fd(), item.path)?.kept;
            let digest = hash_file(&mut File::from(file)).map_err(|error| {
                LayerError::source(item.path, Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
            (FactKind::File(digest), kept)
        }
        (Kind::Other, FileType::Symlink) => {
            let target = rustix::fs::readlinkat(item.parent, os(item.name), Vec::new()).map_err(failed)?;
            (FactKind::Link(target.into_bytes()), xattrs_beside(item)?)
        }
        (Kind::Other, kind) => (FactKind::Special(kind, item.stat.st_rdev), xattrs_beside(item)?),
    };
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root").unwrap();
        symlink("passwd", dir.path().join("etc/link")).unwrap();
        dir
    }

    #[test]
    fn a_difference_is_named_with_its_path() {
        let meant = tree();
        let after = |change: &dyn Fn(&Path)| {
            let found = tree();
            change(&found.path().join("etc"));
            let (difference, files) = first_difference(meant.path(), found.path()).unwrap();
            assert_eq!(files, 3);
            difference.map(|found| format!("{} {}", found.path.display(), found.what))
        };
        assert_eq!(after(&|_| ()), None);
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(
            after(&|etc| fs::write(etc.join("passwd"), "r00t").unwrap()),
            is("etc/passwd has other content")
        );
        assert_eq!(after(&|etc| fs::remove_file(etc.join("passwd")).unwrap()), is("etc/passwd is missing"));
        assert_eq!(after(&|etc| fs::write(etc.join("a"), "").unwrap()), is("etc/a is not of the layer"));
        let private = fs::Permissions::from_mode(0o600);
        assert_eq!(
            after(&|etc| fs::set_permissions(etc.join("passwd"), private.clone()).unwrap()),
            is("etc/passwd has another mode")
        );
        let relink = |etc: &Path| {
            fs::remove_file(etc.join("link")).unwrap();
            symlink("shadow", etc.join("link")).unwrap();
        };
        assert_eq!(after(&relink), is("etc/link leads elsewhere"));
        let retype = |etc: &Path| {
            fs::remove_file(etc.join("link")).unwrap();
            fs::create_dir(etc.join("link")).unwrap();
        };
        assert_eq!(after(&retype), is("etc/link is of another type"));
    }
}
