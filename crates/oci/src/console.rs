//! Terminals: handed to whoever asked for them, or shown on this program's own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::termios::{OptionalActions, Termios};

use crate::error::{Error, Result};

/// Connects to a unix stream socket. Long paths, which a socket's address has no room for, go by a descriptor
/// of their directory.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd> {
    let failed = || Error::errno("connect to", path);
    let (address, _directory) = address(path).map_err(failed())?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed())?;
    rustix::net::connect(&socket, &address).map_err(failed())?;
    Ok(socket)
}

/// The address of a path, however long, good as long as the descriptor beside it is open.
pub(crate) fn address(
    path: &Path,
) -> std::result::Result<(SocketAddrUnix, Option<OwnedFd>), rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok((address, None));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(rustix::io::Errno::NAMETOOLONG);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name.to_string_lossy());
    Ok((SocketAddrUnix::new(short)?, Some(directory)))
}

/// Gives the master side of a terminal away: runc's protocol, whose text is not looked at.
pub(crate) fn hand_over(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let connection = connect(socket)?;
    cata_sys::message::send(connection.as_fd(), b"/dev/ptmx", &[master])
        .map_err(Error::errno("send the terminal to", socket))
}

/// This program's own terminal, in the raw state while this lives.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

impl Raw {
    /// `None` where standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nothing else to try.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Gives the container's terminal the size of ours.
pub(crate) fn resize(master: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        // A terminal without a size is still a terminal.
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}
