//! `cata` for somebody who is not root: before anything else this process enters a user namespace in which it is.
//!
//! Every command makes a namespace of its own with the same ids, so that what one wrote belongs to the next; a
//! container stays in that of the command that started it, with its supervisor.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cata_engine::{Paths, rootless};
use rustix::process::{Gid, Uid, getegid, geteuid, getpid};

/// The command line of the helper that stays outside.
const WORD: &str = "__map-ids";

/// Who called, outside.
static CALLER: OnceLock<u32> = OnceLock::new();

/// Why there is no user namespace: told when an engine is opened.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Becomes root of a user namespace, unless this is root already or the helper. `Some`: this process is the
/// helper, and has done its part.
pub(crate) fn enter(words: &[String]) -> Option<bool> {
    if let [word, pid] = words
        && word == WORD
    {
        return Some(help(pid));
    }
    if !geteuid().is_root()
        && let Err(text) = become_root()
    {
        REFUSED.get_or_init(|| text);
    }
    None
}

fn become_root() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    let known = CALLER.get_or_init(|| uid.as_raw());
    // Only who is outside may write more than one id; it is started before there is an inside.
    let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let mut helper = Command::new(program)
        .args([WORD, &getpid().as_raw_nonzero().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("start a helper: {e}"))?;
    rootless::unshare().map_err(|e| {
        format!("containers for users without privileges need user namespaces, which this host refuses: {e}")
    })?;
    let told = helper.stdin.take().map(|mut pipe| pipe.write_all(b"."));
    let mapped = told.is_some_and(|told| told.is_ok()) && helper.wait().is_ok_and(|status| status.success());
    if !mapped {
        rootless::map_one(*known, gid.as_raw()).map_err(|e| format!("map user {known}: {e}"))?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .map_err(|e| format!("become root of the user namespace: {e}"))
}

/// Whether the caller is not root.
pub(crate) fn is_on() -> bool {
    CALLER.get().is_some()
}

/// Outside: waits until the caller has its namespace, and has its ids written by who may.
fn help(pid: &str) -> bool {
    let mut byte = [0];
    if std::io::stdin().read_exact(&mut byte).is_err() {
        return false;
    }
    let Some(ranges) = rootless::ranges(geteuid().as_raw()) else { return false };
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    [("newuidmap", uid, ranges.uids), ("newgidmap", gid, ranges.gids)].into_iter().all(
        |(program, own, list)| {
            let words = rootless::words(own, &list);
            let why = match Command::new(program).arg(pid).args(words).output() {
                Ok(output) if output.status.success() => return true,
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) => format!("{error} (Debian package uidmap)"),
            };
            let only = "only your own id exists in the container";
            crate::session::note(format!("WARNING: {program}: {why}: {only}"));
            false
        },
    )
}

/// Where an engine is by default: the caller's own directories if he is not root.
pub(crate) fn paths() -> Result<Paths, String> {
    let Some(uid) = CALLER.get() else { return Ok(Paths::default()) };
    if let Some(text) = REFUSED.get() {
        return Err(text.clone());
    }
    let directory = |name: &str| std::env::var_os(name).filter(|d| !d.is_empty()).map(PathBuf::from);
    let home = directory("HOME");
    let data = directory("XDG_DATA_HOME").or_else(|| Some(home.as_ref()?.join(".local/share")));
    let runtime = directory("XDG_RUNTIME_DIR").or_else(|| {
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        usual.is_dir().then_some(usual)
    });
    let own = directory("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
    let own = own.map(|dir| dir.join("catamaran/config.toml")).filter(|file| file.exists());
    let given = |variable: &str| directory(variable).is_some();
    let lacking = |what: &str, flag: &str| format!("{what} is not set: say where with {flag}");
    let default = Paths::default();
    let root = match data {
        Some(dir) => dir.join("catamaran"),
        None if given("CATA_ROOT") => default.root,
        None => return Err(lacking("HOME", "--root")),
    };
    let state = match runtime {
        Some(dir) => dir.join("catamaran"),
        None if given("CATA_STATE") => default.state,
        None => return Err(lacking("XDG_RUNTIME_DIR", "--state, in a directory that a reboot empties")),
    };
    Ok(Paths { root, state, config: own.unwrap_or(default.config), supervisor: default.supervisor })
}
