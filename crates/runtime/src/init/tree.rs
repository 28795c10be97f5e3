//! The container's root with what was mounted in it: where paths are resolved.
//!
//! Somebody who can write to the root (another container with the same one) may rename what is mounted at
//! `/proc` away at any moment. What lies beneath a file system made here is therefore looked for beneath that
//! file system's own descriptor, whatever its name leads to meanwhile.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cata_sys::path::{Make, Root};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// `PROC_SUPER_MAGIC`.
const PROC: u64 = 0x9fa0;
/// `SYSFS_MAGIC`.
const SYSFS: u64 = 0x6265_6572;

/// The root, and file systems made for the container.
pub(super) struct Tree {
    pub(super) root: Root,
    mounted: Vec<(PathBuf, Root)>,
}

impl Tree {
    pub(super) fn new(root: Root) -> Self {
        Self { root, mounted: Vec::new() }
    }

    /// From now on what is beneath `target` is looked for in this file system.
    pub(super) fn mounted(&mut self, target: &Path, tree: OwnedFd) {
        self.covered(target);
        self.mounted.push((target.components().collect(), Root::new(tree)));
    }

    /// Something else lies over `target` now, with names of its own.
    pub(super) fn covered(&mut self, target: &Path) {
        self.mounted.retain(|(at, _)| !at.starts_with(target));
    }

    /// Opens (as `O_PATH`) what is to be covered, made when missing. Where the kernel's own files are it must be
    /// there by that very name: a link from elsewhere would let who made it choose what is covered (CVE-2025-52565).
    pub(super) fn target(&self, path: &Path, make: Make, mode: u32) -> Result<OwnedFd, Errno> {
        let (root, rest) = self.place(path);
        let target = root.make(rest, make, mode)?;
        let fstype = u64::try_from(rustix::fs::fstatfs(&target)?.f_type).unwrap_or_default();
        if fstype == PROC || fstype == SYSFS {
            let straight = rustix::fs::fstat(root.open_without_links(rest, OFlags::PATH)?)?;
            let found = rustix::fs::fstat(&target)?;
            if (straight.st_dev, straight.st_ino) != (found.st_dev, found.st_ino) {
                return Err(Errno::LOOP);
            }
        }
        Ok(target)
    }

    /// Where to look for a path, and what for.
    pub(super) fn place<'a>(&'a self, path: &'a Path) -> (&'a Root, &'a Path) {
        let beneath = |(at, root): &'a (PathBuf, Root)| Some((root, path.strip_prefix(at).ok()?));
        let depth = |rest: &(&Root, &Path)| rest.1.components().count();
        // The deepest, and of several at one place the last.
        match self.mounted.iter().rev().filter_map(beneath).min_by_key(depth) {
            Some((root, rest)) if rest.as_os_str().is_empty() => (root, Path::new(".")),
            Some(found) => found,
            None => (&self.root, path),
        }
    }
}
