//! Who the process becomes.

use cata_sys::path::Root;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::path::Path;

use crate::error::Stage;
use crate::handshake::Failure;
use crate::user::{Identity, UserSpec, resolve as look_up};

/// Databases of users are not larger than this; the rest of a larger file is not read.
const DATABASE_BYTES_MAX: usize = 16 << 20;

/// Root inside a user namespace that was just entered.
pub(super) fn become_root() -> Result<(), Failure> {
    change(0, 0, &[]).map(drop)
}

/// Looks the user up in the container's own files.
pub(super) fn resolve(root: &Root, spec: &UserSpec) -> Result<Identity, Failure> {
    let passwd = read(root, "/etc/passwd")?;
    let group = match spec {
        UserSpec::Named { .. } => read(root, "/etc/group")?,
        UserSpec::Ids { .. } => String::new(),
    };
    look_up(spec, &passwd, &group).map_err(Failure::User)
}

/// A missing file has no entries.
fn read(root: &Root, path: &str) -> Result<String, Failure> {
    let failed = || Failure::at(Stage::UserDatabase, path);
    // Not blocking: it could be a pipe.
    let file = match root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed()(errno)),
    };
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    while bytes.len() < DATABASE_BYTES_MAX {
        match rustix::io::read(&file, &mut chunk).map_err(failed())? {
            0 => break,
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// With this right it is only the user namespace that refuses.
fn may_change_groups() -> bool {
    let right = cata_sys::capability::bit("CAP_SETGID").unwrap_or(0);
    cata_sys::capability::permitted().is_ok_and(|held| held & right != 0)
}

/// Groups first: without root they cannot be changed. `false`: nobody may change the further groups here.
pub(super) fn change(uid: u32, gid: u32, groups: &[u32]) -> Result<bool, Failure> {
    let named = || match groups {
        [] => format!("{uid}:{gid}"),
        _ => {
            let words: Vec<String> = groups.iter().map(u32::to_string).collect();
            format!("{uid}:{gid}, groups {}", words.join(" "))
        }
    };
    let failed = || Failure::at(Stage::Identity, named());
    let list: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let given = match rustix::thread::set_thread_groups(&list) {
        // Where nobody may drop groups (`/proc/self/setgroups`), there are none to be had.
        Err(Errno::PERM) if groups.is_empty() || may_change_groups() => false,
        result => result.map(|()| true).map_err(failed())?,
    };
    let (uid_, gid_) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid_, gid_, gid_).map_err(failed())?;
    rustix::thread::set_thread_res_uid(uid_, uid_, uid_).map_err(failed())?;
    Ok(given)
}
