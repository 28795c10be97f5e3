//! Cgroups of a user without privileges: those that somebody gave him, as systemd gives each user's manager its own
//! (`Delegate=`). Version 2 only: the other has no way to give one away safely.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cata_runtime::cgroup::Layout;

/// Where a user's containers have theirs: beside this process, in the topmost cgroup that is the user's. `None`: there
/// is no such, or this process is in it, and one with processes can have none that are limited.
pub(crate) fn home() -> Option<PathBuf> {
    let layout = Layout::detect().ok()?;
    let unified = layout.unified().filter(|_| layout.is_v2())?;
    let files = ["cgroup.procs", "cgroup.subtree_control"];
    let own = |file: &Path| fs::metadata(unified.mount.join(file)).is_ok_and(|at| at.uid() == 0);
    let owned = |dir: &&Path| own(dir) && files.iter().all(|file| own(&dir.join(file)));
    let top = unified.own.ancestors().take_while(owned).last()?;
    (top != unified.own).then(|| Path::new("/").join(top))
}

/// That of a container's process, wherever it was when it was started. `None`: it has none of its own.
pub(crate) fn of(pid: i32, container: &str) -> Option<PathBuf> {
    let layout = Layout::of(pid).ok()?;
    let own = &layout.unified()?.own;
    let top = own.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == container))?;
    Some(Path::new("/").join(top))
}
