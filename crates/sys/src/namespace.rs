//! Namespaces: leaving one for a new one.
//!
//! Joining is `rustix::thread::move_into_*`.

use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Whether this process is in the user namespace that every other is made in: overlay file systems keep their
/// attributes under another name elsewhere. Looked at once.
pub fn is_first_of_users() -> bool {
    static FIRST: OnceLock<bool> = OnceLock::new();
    *FIRST.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Puts the calling process into new namespaces. Only kinds that leave descriptors and memory alone.
///
/// # Errors
/// `EPERM`, or `EINVAL` for any other kind.
pub fn unshare(kinds: UnshareFlags) -> Result<(), Errno> {
    let allowed = UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWTIME
        | UnshareFlags::NEWUSER
        | UnshareFlags::NEWUTS;
    if !allowed.contains(kinds) {
        return Err(Errno::INVAL);
    }
    // SAFETY: `CLONE_FILES` and its like, which would break what others assume of descriptors, are excluded.
    unsafe { rustix::thread::unshare_unsafe(kinds) }
}

/// Puts the calling thread alone into a new mount namespace, with a working directory of its own. A thread
/// that is thrown away afterwards.
///
/// # Errors
/// `EPERM`, or `EINVAL` for any other kind.
pub fn unshare_thread(kinds: UnshareFlags) -> Result<(), Errno> {
    if kinds != UnshareFlags::NEWNS {
        return Err(Errno::INVAL);
    }
    // SAFETY: descriptors and memory stay shared; only root, working directory and mounts become the thread's.
    unsafe { rustix::thread::unshare_unsafe(kinds | UnshareFlags::FS) }
}
