//! Paths that are hidden or made read-only, mostly in `/proc` and `/sys`.

use std::os::fd::{AsFd, OwnedFd};

use cata_sys::mount::{Depth, Filesystem, attribute};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::host::Host;
use super::tree::Tree;
use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::Plan;

/// All of them. What does not exist needs no hiding.
pub(super) fn all(root: &Tree, plan: &Plan, host: &Host) -> Result<(), Failure> {
    for path in &plan.readonly_paths {
        let failed = || Failure::at(Stage::ReadonlyPath, path.display());
        let Some(place) = find(root, path).map_err(failed())? else { continue };
        let tree = cata_sys::mount::clone_fd(place.as_fd(), Depth::Recursive).map_err(failed())?;
        cata_sys::mount::set_attributes(tree.as_fd(), Depth::Recursive, attribute::RDONLY, 0, 0)
            .map_err(failed())?;
        cata_sys::mount::attach(tree.as_fd(), place.as_fd()).map_err(failed())?;
    }
    let mut empty = None;
    for path in &plan.masked_paths {
        let failed = || Failure::at(Stage::MaskPath, path.display());
        let Some(place) = find(root, path).map_err(failed())? else { continue };
        let kind = rustix::fs::fstat(&place).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let tree = if kind.map_err(failed())? == FileType::Directory {
            empty_directory(&mut empty).map_err(failed())?
        } else {
            host.null().map_err(failed())?
        };
        cata_sys::mount::attach(tree.as_fd(), place.as_fd()).map_err(failed())?;
    }
    Ok(())
}

fn find(root: &Tree, path: &std::path::Path) -> Result<Option<OwnedFd>, Errno> {
    let (root, rest) = root.place(path);
    match root.open(rest, OFlags::PATH) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// One file system for all masked directories, and a mount of it for each.
fn empty_directory(empty: &mut Option<OwnedFd>) -> Result<OwnedFd, Errno> {
    let attributes = attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
    match empty {
        // A copy can only be made of what is attached: the first mask stays open for that.
        Some(attached) => cata_sys::mount::clone_fd(attached.as_fd(), Depth::This),
        None => {
            let tmpfs = Filesystem::open("tmpfs")?;
            tmpfs.set("mode", b"755")?;
            tmpfs.set("nr_inodes", b"1")?;
            let tree = tmpfs.mount(attributes)?;
            let same = rustix::io::fcntl_dupfd_cloexec(&tree, 3)?;
            *empty = Some(tree);
            Ok(same)
        }
    }
}
