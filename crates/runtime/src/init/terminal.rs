//! A terminal from the container's own devpts: what the container sees as `/dev/pts/0` exists for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::mount::Depth;
use cata_sys::path::Root;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::tree::Tree;
use crate::error::Stage;
use crate::handshake::{Channel, Failure, Message};
use crate::plan::Process;

/// Where it is.
pub(super) const PTMX: &str = "/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: u64 = 0x1cd1;

/// Opens a pair, sends the master to the caller, and returns the slave.
pub(super) fn open(
    (root, ptmx): (&Root, &Path),
    process: &Process,
    uid: u32,
    channel: &Channel,
) -> Result<Option<OwnedFd>, Failure> {
    if !process.terminal {
        return Ok(None);
    }
    let (master, slave) = pair(root, ptmx).map_err(Failure::at(Stage::Terminal, PTMX))?;
    if let Some(size) = process.window {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).map_err(Failure::at(Stage::Terminal, PTMX))?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None).map_err(Failure::at(Stage::Terminal, PTMX))?;
    channel.send(&Message::Terminal, Some(master.as_fd())).map_err(Failure::at(Stage::Handshake, ""))?;
    Ok(Some(slave))
}

fn pair(root: &Root, ptmx: &Path) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master = root.open_without_links(ptmx, OFlags::RDWR | OFlags::NOCTTY)?;
    // An image could have something else under that name.
    if u64::try_from(rustix::fs::fstatfs(&master)?.f_type) != Ok(DEVPTS) {
        return Err(Errno::NOTTY);
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // By descriptor: its name in the file system is not asked.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// Shows the slave as `/dev/console`.
pub(super) fn as_console(root: &Tree, slave: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::Terminal, "/dev/console");
    // By that very name: what an image has there may be a link (CVE-2025-52565).
    let (root, rest) = root.place(Path::new("/dev/console"));
    let target = match root.open_without_links(rest, OFlags::PATH) {
        Err(Errno::NOENT) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let (parent, name) = root.make_parent(rest).map_err(failed())?;
            rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(failed())?;
            root.open_without_links(rest, OFlags::PATH)
        }
        result => result,
    };
    let target = target.map_err(failed())?;
    let tree = cata_sys::mount::clone_fd(slave, Depth::This).map_err(failed())?;
    cata_sys::mount::attach(tree.as_fd(), target.as_fd()).map_err(failed())
}

/// Makes it the controlling terminal of this session.
pub(super) fn control(slave: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::ioctl_tiocsctty(slave).map_err(Failure::at(Stage::Terminal, "controlling terminal"))
}
