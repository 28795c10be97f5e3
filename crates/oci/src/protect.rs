//! The program's own file is out of a container's reach (CVE-2019-5736): before it makes a process it runs
//! itself again from a read-only mount that is in nobody's mount table, or, without the right to mount, from a
//! sealed copy in memory. What `/proc/<pid>/exe` then leads to cannot be written by anybody.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use cata_sys::mount::{Depth, attribute};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

const SELF: &str = "/proc/self/exe";

/// Returns when this program runs protected.
pub(crate) fn ensure() -> Result<()> {
    let path = Path::new(SELF);
    let own = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::errno("open", path))?;
    if is_protected(&own).map_err(Error::errno("look at", path))? {
        return Ok(());
    }
    let program = match mounted(path) {
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => copied(path),
        result => result,
    };
    let program = program.map_err(Error::errno("protect", path))?;
    let words: Vec<OsString> = std::env::args_os().collect();
    let variables: Vec<OsString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    let texts = |list: Vec<OsString>| -> Result<Vec<CString>> {
        let text = |word: OsString| CString::new(word.into_vec()).map_err(|e| Error::new(e.to_string()));
        list.into_iter().map(text).collect()
    };
    let errno = cata_sys::program::execute_fd(program.as_fd(), &texts(words)?, &texts(variables)?);
    Err(Error::errno("execute a protected copy of", path)(errno))
}

/// On a read-only mount, or sealed.
fn is_protected(own: &OwnedFd) -> std::result::Result<bool, Errno> {
    if rustix::fs::fstatvfs(own)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let open = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fcntl_get_seals(&open).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn mounted(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let tree = cata_sys::mount::clone_path(path, Depth::This)?;
    cata_sys::mount::set_attributes(tree.as_fd(), Depth::This, attribute::RDONLY, 0, 0)?;
    Ok(tree)
}

fn copied(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let source = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("cata-runtime", flags)?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 24)? > 0 {}
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(copy)
}
