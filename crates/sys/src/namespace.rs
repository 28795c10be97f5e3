//! Namespaces: leaving one for a new one.
//!
//! Joining is `rustix::thread::move_into_*`.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

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
