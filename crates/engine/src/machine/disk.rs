//! A machine's disk: a file with holes in the machine's directory, with a file system made by `mke2fs`.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Where distributions have it.
const PLACES: [&str; 3] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs"];

/// Whether one could be made.
pub(super) fn check() -> Result<()> {
    program().map(|_| ())
}

fn program() -> Result<PathBuf> {
    PLACES.map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| Error::Unsupported {
        what: "the disk of a machine needs the program mke2fs".to_owned(),
        hint: "install Debian's package e2fsprogs".to_owned(),
    })
}

/// Makes a disk; it is there whole or not at all.
pub(super) fn make(path: &Path, bytes: u64) -> Result<()> {
    let mke2fs = program()?;
    let partial = path.with_extension("partial");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let file = file.map_err(Error::file("create", &partial))?;
    file.set_len(bytes).map_err(Error::file("extend", &partial))?;
    // No block is for root alone: nobody else is there.
    let output = Command::new(&mke2fs)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "catamaran", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(&partial)
        .output()
        .map_err(Error::file("run", &mke2fs))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::State {
            what: format!("mke2fs cannot make a file system in {}: {}", partial.display(), said.trim()),
            hint: None,
        });
    }
    file.sync_all().map_err(Error::file("sync", &partial))?;
    fs::rename(&partial, path).map_err(Error::file("create", path))
}

/// Bytes it takes.
pub(super) fn used(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| facts.blocks() * 512)
}
