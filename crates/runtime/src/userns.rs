//! User namespaces with nobody in them: those of mounts, and those that a network is made in before its container.

use std::os::fd::OwnedFd;
use std::process::Command;

use cata_sys::clone::{Keeper, Namespaces};
use rustix::thread::UnshareFlags;

use crate::error::{SpawnError, Stage, at};
use crate::namespace::{open_path, write_maps};
use crate::plan::IdMapping;

/// Namespaces that live for as long as they are open.
#[derive(Debug)]
pub struct Made {
    /// The user namespace.
    pub user: OwnedFd,
    /// A network namespace that belongs to it.
    pub network: Option<OwnedFd>,
}

/// Makes a user namespace with these mappings, and one of a network in it. The caller may have any number of
/// threads.
///
/// # Errors
/// [`SpawnError`].
pub fn make(uids: &[IdMapping], gids: &[IdMapping], network: bool) -> Result<Made, SpawnError> {
    let mut kinds = UnshareFlags::NEWUSER;
    kinds.set(UnshareFlags::NEWNET, network);
    let keeper =
        Keeper::new(Namespaces(u64::from(kinds.bits()))).map_err(at(Stage::MakeNamespace, "user"))?;
    let pid = keeper.pid().as_raw_nonzero().get();
    write_maps(pid, uids, gids)?;
    let open = |name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        open_path(&path).map_err(at(Stage::MakeNamespace, &path))
    };
    let network = if network { Some(open("net")?) } else { None };
    Ok(Made { user: open("user")?, network })
}

/// Has the maps of a process's new user namespace written by programs that may: `newuidmap` and `newgidmap` look into
/// `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// In words: which of them is missing, or what it says.
pub fn map_by_helpers(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), String> {
    for (program, file, ranges) in [("newuidmap", "subuid", uids), ("newgidmap", "subgid", gids)] {
        let mut command = Command::new(program);
        command.arg(pid.to_string());
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
    Ok(())
}
