//! The socket: given by a service manager, or made here for root and one group.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where clients are awaited when nothing else is said.
pub(crate) const DEFAULT: &str = "/run/catamaran.sock";

/// A socket that listens.
pub(crate) struct Listening {
    pub(crate) socket: UnixListener,
    /// Where, if it was made here.
    pub(crate) path: Option<PathBuf>,
}

/// Listens where a service manager says (`LISTEN_FDS`), or at `address`.
pub(crate) fn listen(address: Option<&str>, group: Option<&str>) -> Result<Listening, String> {
    let listening = match given()? {
        Some(socket) => Listening { socket: UnixListener::from(socket), path: None },
        None => {
            let path = path(address.unwrap_or(DEFAULT))?;
            Listening { socket: bind(&path, group)?, path: Some(path) }
        }
    };
    listening.socket.set_nonblocking(true).map_err(|error| format!("cannot listen: {error}"))?;
    Ok(listening)
}

/// The third descriptor, where it was meant for this process.
fn given() -> Result<Option<OwnedFd>, String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) => take_third().map(Some),
        Some(many) => Err(format!("LISTEN_FDS={many}: one socket is served")),
    }
}

/// A descriptor that exists by its number only: a copy of it is one that is owned.
fn take_third() -> Result<OwnedFd, String> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own =
        pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| format!("cannot open itself: {error}"))?;
    pidfd_getfd(&own, 3, PidfdGetfdFlags::empty())
        .map_err(|error| format!("LISTEN_FDS, but no socket: {error}"))
}

/// PURE: an address as a path; networks are refused.
fn path(address: &str) -> Result<PathBuf, String> {
    match address.split_once("://") {
        None if address.starts_with('/') => Ok(address.into()),
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("fd", _)) => Err(format!("{address}: no socket was handed over (LISTEN_FDS)")),
        Some(("tcp" | "http" | "https" | "ssh" | "npipe", _)) => Err(format!(
            "{address}: only unix sockets are served: whoever reaches this API is root. `ssh -L` forwards one"
        )),
        _ => Err(format!("{address}: it must be unix:///PATH")),
    }
}

fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let said = |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(format!("{} is there, and no socket", path.display()));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(format!("{} is served already", path.display()));
        }
        // Of one that was killed.
        fs::remove_file(path).map_err(|error| said("remove", error))?;
    }
    let gid = group.map(group_id).transpose()?;
    // Nobody may be faster than the mode.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&new);
    let socket = UnixListener::bind(&new).map_err(|error| said("listen on", error))?;
    std::os::unix::fs::chown(&new, None, gid).map_err(|error| said("give a group to", error))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(if gid.is_some() { 0o660 } else { 0o600 }))
        .map_err(|error| said("set the mode of", error))?;
    fs::rename(&new, path).map_err(|error| said("listen on", error))?;
    Ok(socket)
}

/// A group by its name or number.
fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| format!("no such group: {group}"))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn addresses_are_unix_sockets() {
        assert_eq!(path("unix:///run/x.sock").unwrap().to_str(), Some("/run/x.sock"));
        assert_eq!(path("/run/x.sock").unwrap().to_str(), Some("/run/x.sock"));
        for bad in ["tcp://0.0.0.0:2375", "fd://", "x.sock", "unix://x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path("tcp://1.2.3.4:1").unwrap_err().contains("only unix sockets"));
    }
}
