//! The namespaces of a user without privileges, held by a process of their own for as long as a command or a
//! container uses them: a user namespace, and in it the network that stands for the host's.
//!
//! Who uses them has [`USERS`] open for writing. The holder ends when nobody has any more, so that nothing is
//! left of a user who runs nothing; a container's supervisor keeps it as it keeps its ports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cata_sys::{message, namespace};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Beneath `<state>/`: where the following files are.
pub const DIRECTORY: &str = "user";
/// Locked by whoever looks for the holder or makes one, and by the holder while it decides to leave.
pub const LOCK: &str = "lock";
/// The holder's process id; locked for as long as it lives.
pub const HOLDER: &str = "holder";
/// A named pipe: written to by nobody, open for writing in everybody who uses the namespaces.
pub const USERS: &str = "users";
/// A named pipe that the holder alone has open for writing: its end is the end of what brings the network out.
pub const OUTSIDE: &str = "outside";

/// The program's first word as a holder; the process whose namespaces are taken over may follow, once for users,
/// once for the network; `0` is none.
pub const WORD: &str = "hold";

/// Said by the holder when it has a user namespace without ids, and when it is ready.
const READY: &[u8] = b".";

/// Begins [`hold`]'s side of the talk from the other end: the namespace is there.
///
/// # Errors
/// What the holder said, or that it ended.
pub fn heard(socket: &OwnedFd) -> io::Result<()> {
    match message::receive(socket.as_fd(), 4096, 0)? {
        Some((word, _)) if word == READY => Ok(()),
        Some((text, _)) => Err(io::Error::other(String::from_utf8_lossy(&text).into_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Tells the holder to go on.
///
/// # Errors
/// It has ended.
pub fn go_on(socket: &OwnedFd) -> io::Result<()> {
    Ok(message::send(socket.as_fd(), READY, &[])?)
}

/// The holder itself, from its first step to its end. Its descriptors: what [`HOLDER`] is locked by, the
/// socket of who started it, the pipes, and a descriptor of [`LOCK`] of its own.
///
/// # Errors
/// What kept it from having the namespaces; it has been told.
pub fn hold([alive, socket, users, _outside, lock]: [OwnedFd; 5], from: [u32; 2]) -> io::Result<()> {
    let outcome = enter(&socket, from);
    if let Err(error) = &outcome {
        let _ = message::send(socket.as_fd(), error.to_string().as_bytes(), &[]);
    }
    outcome?;
    go_on(&socket)?;
    drop(socket);
    loop {
        wait(&users, None)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))?;
        // Whoever came meanwhile has found this process alive.
        if wait(&users, Some(Timespec { tv_sec: 0, tv_nsec: 0 }))? {
            // Before the other: who gets that one next must not find us.
            drop(alive);
            return Ok(());
        }
        rustix::fs::flock(&lock, FlockOperation::Unlock)?;
    }
}

fn enter(socket: &OwnedFd, [user, network]: [u32; 2]) -> io::Result<()> {
    // Both before the first is entered: from outside they are ours to open.
    let open = |pid: u32, kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (pid != 0).then(|| rustix::fs::openat(CWD, path, flags, Mode::empty())).transpose()
    };
    let (user, network) = (open(user, "user")?, open(network, "net")?);
    match user {
        Some(user) => move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?,
        None => {
            namespace::unshare(UnshareFlags::NEWUSER)?;
            // The ids are written by who is outside.
            go_on(socket)?;
            heard(socket)?;
        }
    }
    match network {
        Some(network) => move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?,
        None => namespace::unshare(UnshareFlags::NEWNET)?,
    }
    Ok(())
}

/// Waits until nobody has the pipe open any more; `false`: somebody has, and the time is over.
fn wait(users: &OwnedFd, at_most: Option<Timespec>) -> io::Result<bool> {
    loop {
        let mut watched = [PollFd::new(users, PollFlags::empty())];
        match poll(&mut watched, at_most.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if watched[0].revents().contains(PollFlags::HUP) => return Ok(true),
            Ok(_) if at_most.is_some() => return Ok(false),
            Ok(_) => {}
        }
    }
}
