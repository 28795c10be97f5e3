//! What this process may do: everything, or what a user without privileges may.

use std::process::Command;

use cata_runtime::plan::IdMapping;
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

/// Has the maps of a child written by who may: `newuidmap` and `newgidmap` look into `/etc/subuid` and
/// `/etc/subgid`. `false`: they are not needed.
pub(crate) fn map_ids(pid: Pid, uids: &[IdMapping], gids: &[IdMapping]) -> Result<bool, String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() || (may_write(uids, uid.as_raw()) && may_write(gids, gid.as_raw())) {
        return Ok(false);
    }
    for (program, file, ranges) in [("newuidmap", "subuid", uids), ("newgidmap", "subgid", gids)] {
        let mut command = Command::new(program);
        command.arg(pid.as_raw_nonzero().to_string());
        for range in ranges {
            command.args([range.container, range.host, range.size].map(|n| n.to_string()));
        }
        let output = command.output().map_err(|error| {
            format!("cannot run {program} (Debian package uidmap), which maps ids for users without privileges: {error}")
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{program}: {}; what a user may map is in /etc/{file}", said.trim()));
        }
    }
    Ok(true)
}
