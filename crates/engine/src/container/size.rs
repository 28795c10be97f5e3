//! How much a container has written: `ps -s`, `inspect -s`, `system df`.
//!
//! The container may be at work in the tree that is walked: every directory is opened beneath its parent's
//! descriptor, links are not followed, and what vanishes meanwhile is not there.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;

/// Deeper trees are not counted further: each level holds a descriptor.
const DEEPEST: usize = 200;

/// Sizes of a container's files, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// What it has written itself.
    pub written: u64,
    /// That, and its image.
    pub total: u64,
}

impl Engine {
    /// How much a container has written.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn sizes(&self, record: &Record) -> Result<Sizes> {
        let upper = self.dir(&record.id).upper();
        let written = tree_size(&upper).map_err(Error::file("measure", &upper))?;
        // An image that was forced away counts nothing more.
        let image = self.image(&record.image.id).map_or(0, |image| image.size);
        Ok(Sizes { written, total: written + image })
    }
}

/// The sizes of all regular files and links beneath a directory, each file once however many names it has.
pub(crate) fn tree_size(path: &Path) -> std::result::Result<u64, Errno> {
    let mut total = 0;
    let mut seen = HashSet::new();
    let mut open: Vec<(Dir, OwnedFd)> = Vec::new();
    match enter(CWD, path) {
        Ok(top) => open.push(top),
        Err(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error),
    }
    loop {
        let depth = open.len();
        let Some((dir, fd)) = open.last_mut() else { break };
        let Some(entry) = dir.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < DEEPEST => match enter(&*fd, name) {
                Ok(child) => open.push(child),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error),
            },
            FileType::RegularFile | FileType::Symlink
                if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) =>
            {
                total += u64::try_from(stat.st_size).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(total)
}

fn enter(
    at: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg,
) -> std::result::Result<(Dir, OwnedFd), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(at, name, flags, Mode::empty())?;
    Ok((Dir::read_from(&fd)?, fd))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::tree_size;

    #[test]
    fn tree_size_counts_a_file_once_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("big"), [0; 1000]).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), [0; 100]).unwrap();
        fs::hard_link(tree.join("a/b/file"), tree.join("again")).unwrap();
        symlink("/etc", tree.join("link")).unwrap();
        symlink(&outside, tree.join("a/dir")).unwrap();
        let links = 4 + outside.as_os_str().len() as u64;
        assert_eq!(tree_size(&tree), Ok(100 + links));
        assert_eq!(tree_size(&dir.path().join("none")), Ok(0));
        // A tree deeper than there are descriptors ends all the same.
        let mut deep = tree.clone();
        for _ in 0..400 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(tree_size(&tree), Ok(100 + links));
    }
}
