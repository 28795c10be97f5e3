//! Layers looked at and written to as one tree: an overlay that is mounted nowhere, and gone with its
//! descriptor, however this process ends.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cata_sys::mount::{Depth, Filesystem, attribute, mount_classic, set_propagation};
use cata_sys::namespace::is_first_of_users;
use cata_sys::path::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::BuildError;
use crate::error::Kind;

/// What `fsconfig` takes as one value.
const VALUE_MAX: usize = 255;

/// Mounts layers (topmost first) for reading.
pub(super) fn read(lower: &[PathBuf], empty: &Path) -> Result<Root, BuildError> {
    match lower {
        [] => open(empty),
        [one] => open(one),
        several => mount(several, None),
    }
}

/// Mounts layers with a directory that takes what is written. `work` is overlay's own.
pub(super) fn write(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<Root, BuildError> {
    if lower.is_empty() { open(upper) } else { mount(lower, Some((upper, work))) }
}

fn open(path: &Path) -> Result<Root, BuildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| BuildError::io("open", path, errno))?;
    Ok(Root::new(fd))
}

fn mount(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<Root, BuildError> {
    let tree = if takes_layers_one_by_one() { modern(lower, upper) } else { classic(lower, upper) };
    tree.map(Root::new).map_err(|(errno, said)| {
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        BuildError::new(
            Kind::Internal,
            format!("cannot mount an overlay of {} layers{said}: {errno}", lower.len()),
        )
    })
}

type Failure = (Errno, Option<String>);

fn plain(errno: Errno) -> Failure {
    (errno, None)
}

fn modern(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, Failure> {
    let overlay = Filesystem::open("overlay").map_err(plain)?;
    let mut kept = Vec::new();
    let mut directories: Vec<(&str, &Path)> =
        lower.iter().map(|layer| ("lowerdir+", layer.as_path())).collect();
    if let Some((upper, work)) = upper {
        directories.extend([("upperdir", upper), ("workdir", work)]);
    }
    for (key, path) in directories {
        let bytes = path.as_os_str().as_bytes();
        let set = if bytes.len() <= VALUE_MAX {
            overlay.set(key, bytes)
        } else {
            overlay.set(key, short(path, &mut kept).map_err(plain)?.as_bytes())
        };
        set.map_err(|errno| (errno, overlay.complaint()))?;
    }
    if upper.is_some() && is_first_of_users() {
        // A layer is a tree of its own: no references to places in others.
        for option in ["redirect_dir", "metacopy"] {
            overlay.set(option, b"off").map_err(|errno| (errno, overlay.complaint()))?;
        }
    }
    // Which allows neither.
    if !is_first_of_users() {
        overlay.flag("userxattr").map_err(|errno| (errno, overlay.complaint()))?;
    }
    overlay.mount(0).map_err(|errno| (errno, overlay.complaint()))
}

/// Before Linux 6.7: the old call, in a mount namespace that nobody else sees and that is gone at once; an
/// open descriptor is all that stays of it.
fn classic(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, Failure> {
    let place = upper.map_or(lower[0].as_path(), |(upper, _)| upper);
    let work = || -> Result<OwnedFd, Errno> {
        cata_sys::namespace::unshare_thread(UnshareFlags::NEWNS)?;
        set_propagation(Path::new("/"), attribute::PRIVATE, Depth::Recursive)?;
        let mut kept = Vec::new();
        let names: Result<Vec<String>, Errno> = lower.iter().map(|layer| short(layer, &mut kept)).collect();
        let mut data = format!("lowerdir={}", names?.join(":"));
        if let Some((upper, work)) = upper {
            let (upper, work) = (short(upper, &mut kept)?, short(work, &mut kept)?);
            data.push_str(&format!(",upperdir={upper},workdir={work}"));
        }
        match is_first_of_users() {
            true if upper.is_some() => data.push_str(",redirect_dir=off,metacopy=off"),
            true => {}
            false => data.push_str(",userxattr"),
        }
        mount_classic("overlay", place, "overlay", false, data.as_bytes())?;
        rustix::fs::open(place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or(Err(Errno::IO))).map_err(plain)
}

fn takes_layers_one_by_one() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']);
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    (number(), number()) >= (6, 7)
}

fn short(path: &Path, kept: &mut Vec<OwnedFd>) -> Result<String, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    kept.push(fd);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_show_the_same_tree() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["one", "two", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("one/a"), "1").unwrap();
        std::fs::write(path("two/b"), "2").unwrap();
        let lower = [path("two"), path("one")];
        for make in [modern, classic] {
            let tree = match make(&lower, Some((&path("upper"), &path("work")))) {
                Ok(tree) => Root::new(tree),
                // A kernel that has only the old one.
                Err(_) if !takes_layers_one_by_one() => continue,
                Err(error) => panic!("{error:?}"),
            };
            assert!(tree.open(Path::new("a"), OFlags::RDONLY).is_ok());
            assert!(tree.open(Path::new("b"), OFlags::RDONLY).is_ok());
            tree.make(Path::new("c"), cata_sys::path::Make::File, 0o644).unwrap();
            drop(tree);
            std::fs::remove_file(path("upper/c")).unwrap();
        }
    }
}
