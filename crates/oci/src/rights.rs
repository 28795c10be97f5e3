//! What this process may do: everything, or what a user without privileges may.

use cata_runtime::plan::IdMapping;
use cata_runtime::userns;
use rustix::process::Pid;

/// Whether this is the host's root, and not one of a user namespace.
pub(crate) fn are_full() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    cata_sys::namespace::is_first_of_users()
}

/// Whether this process can write a map of its child by itself: its own id alone, or with the right to any.
fn may_write(ranges: &[IdMapping], own: u32) -> bool {
    matches!(ranges, [only] if only.size == 1 && only.host == own)
}

/// Has the maps of a child written by who may. `false`: they are not needed.
pub(crate) fn map_ids(pid: Pid, uids: &[IdMapping], gids: &[IdMapping]) -> Result<bool, String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() || (may_write(uids, uid.as_raw()) && may_write(gids, gid.as_raw())) {
        return Ok(false);
    }
    userns::map_by_helpers(pid.as_raw_nonzero().get(), uids, gids)?;
    Ok(true)
}
