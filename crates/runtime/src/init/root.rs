//! The root file system: made, attached, entered.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cata_sys::mount::{Depth, Filesystem, attribute};
use cata_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::{self, Propagation};

/// Makes the root, detached.
pub(super) fn tree(root: &plan::Root) -> Result<OwnedFd, Failure> {
    match root {
        plan::Root::Path(path) => cata_sys::mount::clone_path(path, Depth::Recursive)
            .map_err(Failure::at(Stage::Root, path.display())),
        plan::Root::Overlay { lower, upper, work, options, .. } => {
            overlay(lower, upper.as_ref().zip(work.as_ref()), options)
        }
    }
}

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
        None => tree(root)?,
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

/// Linux 6.7 takes layers one at a time, of any number and with any characters in their names. Before it all
/// options share a page, and a value given to `fsconfig` has at most 255 bytes: there the old call is used,
/// with descriptors for names.
fn overlay(
    lower: &[PathBuf],
    upper_work: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> Result<OwnedFd, Failure> {
    // Elsewhere overlay may not write the attributes that it has there.
    let named = (!cata_sys::namespace::is_first_of_users()).then(|| "userxattr".to_owned());
    let options: Vec<String> = options.iter().cloned().chain(named).collect();
    let options = options.as_slice();
    if !takes_layers_one_by_one() {
        return overlay_in_a_page(lower, upper_work, options);
    }
    let subject = upper_work.map_or("overlay".into(), |(upper, _)| upper.display().to_string());
    let overlay = Filesystem::open("overlay").map_err(Failure::at(Stage::Root, "overlay"))?;
    let complain = |subject: &str, errno: Errno| Failure::System {
        stage: Stage::Root,
        subject: subject.to_owned(),
        detail: overlay.complaint(),
        errno: errno.raw_os_error(),
    };
    // Kept open until the mount is made.
    let mut names = Names::default();
    let mut directories: Vec<(&str, &PathBuf)> = lower.iter().map(|layer| ("lowerdir+", layer)).collect();
    if let Some((upper, work)) = upper_work {
        directories.push(("upperdir", upper));
        directories.push(("workdir", work));
    }
    for (key, path) in directories {
        let bytes = path.as_os_str().as_bytes();
        let set = if bytes.len() <= VALUE_MAX {
            overlay.set(key, bytes)
        } else {
            overlay.set(key, names.short(path)?.as_bytes())
        };
        set.map_err(|errno| complain(&path.display().to_string(), errno))?;
    }
    for option in options {
        let set = match option.split_once('=') {
            Some((key, value)) => overlay.set(key, value.as_bytes()),
            None => overlay.flag(option),
        };
        set.map_err(|errno| complain(option, errno))?;
    }
    overlay.mount(0).map_err(|errno| complain(&subject, errno))
}

/// What `fsconfig` takes as one value.
const VALUE_MAX: usize = 255;

fn takes_layers_one_by_one() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']);
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    (number(), number()) >= (6, 7)
}

/// Directories under names of a few bytes, for as long as this lives.
#[derive(Default)]
struct Names(Vec<OwnedFd>);

impl Names {
    fn short(&mut self, path: &Path) -> Result<String, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(Failure::at(Stage::Root, path.display()))?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.0.push(fd);
        Ok(name)
    }
}

/// Mounts over one of its own directories, which nobody needs by its path any more, and takes a copy.
fn overlay_in_a_page(
    lower: &[PathBuf],
    upper_work: Option<(&PathBuf, &PathBuf)>,
    options: &[String],
) -> Result<OwnedFd, Failure> {
    let mut names = Names::default();
    let layers: Result<Vec<_>, _> = lower.iter().map(|layer| names.short(layer)).collect();
    let mut data = format!("lowerdir={}", layers?.join(":"));
    if let Some((upper, work)) = upper_work {
        // Writing to a String cannot fail.
        let _ = write!(data, ",upperdir={},workdir={}", names.short(upper)?, names.short(work)?);
    }
    for option in options {
        let _ = write!(data, ",{option}");
    }
    let place = upper_work.map(|(upper, _)| upper).or(lower.first());
    let place = place.ok_or_else(|| Failure::at(Stage::Root, "overlay")(Errno::INVAL))?;
    cata_sys::mount::mount_classic("overlay", place, "overlay", false, data.as_bytes())
        .map_err(Failure::at(Stage::Root, place.display()))?;
    cata_sys::mount::clone_path(place, Depth::This).map_err(Failure::at(Stage::Root, place.display()))
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
