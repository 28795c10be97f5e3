//! The root file system: attached, entered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::mount::{Depth, attribute};
use cata_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::{self, Propagation};
use crate::rootfs;

/// Mounts the root over `/` (or a directory over itself), where nobody sees it until [`finish`] makes it the root;
/// `shown`: where hooks can name it.
pub(super) fn attach(root: &plan::Root, prepared: Option<OwnedFd>, shown: bool) -> Result<Root, Failure> {
    let slash = Path::new("/");
    // A directory is covered by its own mount, where hooks expect the container's root to be. An overlay covers its
    // upper layer when there are hooks to see it.
    let place = match root {
        plan::Root::Path(path) => path.as_path(),
        plan::Root::Overlay { upper: Some(upper), .. } if shown => upper.as_path(),
        plan::Root::Overlay { .. } => slash,
    };
    let reachable = prepared.is_none();
    let tree = match prepared {
        Some(tree) => tree,
        None => rootfs::tree(root)?,
    };
    // The host's peers of a shared tree must not see what is mounted below it here.
    cata_sys::mount::set_attributes(tree.as_fd(), Depth::Recursive, 0, 0, attribute::PRIVATE)
        .map_err(Failure::at(Stage::Root, "propagation"))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = match rustix::fs::open(place, flags, Mode::empty()) {
        Err(Errno::ACCESS) if !reachable => rustix::fs::open(slash, flags, Mode::empty()),
        result => result,
    };
    let target = target.map_err(Failure::at(Stage::Root, place.display()))?;
    cata_sys::mount::attach(tree.as_fd(), target.as_fd())
        .map_err(Failure::at(Stage::Root, place.display()))?;
    Ok(Root::new(tree))
}

/// A mount namespace to assemble the root in, of a container that is to have none of its own. Gives the one to
/// come back to.
pub(super) fn leave_home() -> Result<OwnedFd, Failure> {
    let name = "/proc/self/ns/mnt";
    let home = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let home = home.map_err(Failure::at(Stage::JoinNamespace, name))?;
    cata_sys::namespace::unshare(UnshareFlags::NEWNS).map_err(Failure::at(Stage::MakeNamespace, "mnt"))?;
    Ok(home)
}

/// Back where [`leave_home`] came from, with a copy of the root as the root: detached, so that nothing of it is in
/// the host's mount table, it goes with the last process in it, and nothing is above it to be reached by `..`.
/// The kernel changes no mounts there, whoever asks.
pub(super) fn finish_at_home(root: &Root, readonly: bool, home: &OwnedFd) -> Result<Root, Failure> {
    let failed = || Failure::at(Stage::PivotRoot, "");
    if readonly {
        cata_sys::mount::set_attributes(root.as_fd(), Depth::This, attribute::RDONLY, 0, 0)
            .map_err(Failure::at(Stage::Root, "read-only"))?;
    }
    let tree = cata_sys::mount::clone_fd(root.as_fd(), Depth::Recursive).map_err(failed())?;
    rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(Failure::at(Stage::JoinNamespace, "mnt"))?;
    enter(tree.as_fd())?;
    Ok(Root::new(tree))
}

/// Makes a directory that is no mount of this namespace the root.
pub(super) fn enter(root: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(root)
        .and_then(|()| rustix::process::chroot("."))
        .map_err(Failure::at(Stage::PivotRoot, ""))
}

/// The last changes to the root, and into it.
pub(super) fn finish(root: &Root, readonly: bool, propagation: Propagation) -> Result<(), Failure> {
    if readonly {
        cata_sys::mount::set_attributes(root.as_fd(), Depth::This, attribute::RDONLY, 0, 0)
            .map_err(Failure::at(Stage::Root, "read-only"))?;
    }
    cata_sys::mount::pivot_into(root.as_fd()).map_err(Failure::at(Stage::PivotRoot, ""))?;
    if propagation != Propagation::Private {
        cata_sys::mount::set_propagation(Path::new("/"), propagation.flag(), Depth::Recursive)
            .map_err(Failure::at(Stage::Root, "propagation"))?;
    }
    Ok(())
}
