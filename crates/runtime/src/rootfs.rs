//! A root file system as a detached tree: a directory's, or an overlay of layers.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cata_sys::mount::{Depth, Filesystem};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::Root;

/// Makes the root, detached.
pub(crate) fn tree(root: &Root) -> Result<OwnedFd, Failure> {
    match root {
        Root::Path(path) => cata_sys::mount::clone_path(path, Depth::Recursive)
            .map_err(Failure::at(Stage::Root, path.display())),
        Root::Overlay { lower, upper, work, options, .. } => {
            overlay(lower, upper.as_ref().zip(work.as_ref()), options)
        }
    }
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
