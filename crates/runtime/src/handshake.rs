//! The messages between the caller and the new process, over a socket that the program's start closes.
//!
//! ```text
//! caller                                   new process
//!   clone3 ────────────────────────────────► cgroups, asks to die with the caller
//!   id maps, oom score
//!   one byte: go ──────────────────────────► mounts, root, identity, lockdown
//!      ◄──────────────── Withheld(text) ───    (any number)
//!      ◄───────────── Hooks(moment) ───────    (with hooks; answered with the container's state)
//!   state ───────────────────────────────►
//!      ◄──────── Terminal + descriptor ────    (with a terminal)
//!      ◄───────────────────── Waiting ─────    (with a gate; answered once the caller has written it down,
//!   recorded ────────────────────────────►     from then on it lives without the caller,
//!      ◄────────────────────── Free ───────     and whoever connects to the gate is the next one)
//!      ◄───────── Listener(number) ────────    (with a filter that notifies)
//!      ◄─────────────────────── Ready ─────    execve
//!   end of file: the program runs
//!      ◄───────────── Failed(failure) ─────    at any moment: then it exits
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupError;
use crate::error::{SpawnError, Stage};
use crate::user::UserError;

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Withheld(String),
    Terminal,
    Hooks(Moment),
    Waiting,
    Free,
    /// The number that the filter's descriptor is going to have in the new process.
    Listener(i32),
    Ready,
    /// A root, from who makes one in a mount namespace of his own.
    Tree,
    Failed(Failure),
}

/// What the caller has to do, or to tell, before the new process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Moment {
    CreateRuntime,
    StartContainer,
}

/// [`SpawnError`] as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    System {
        stage: Stage,
        subject: String,
        detail: Option<String>,
        errno: i32,
    },
    NotInPath(String),
    NoProgram(String),
    NoInterpreter(String),
    NotExecutable(String),
    Directory(String),
    Format(String),
    User(UserError),
    NotDirectory(PathBuf),
    Hook(String),
    Unsupported(String),
    /// The caller is gone; nobody will read this.
    Orphaned,
}

impl Failure {
    /// For `map_err`: names what was being done, and to what.
    pub(crate) fn at(stage: Stage, subject: impl ToString) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System {
            stage,
            subject: subject.to_string(),
            detail: None,
            errno: errno.raw_os_error(),
        }
    }
}

impl Failure {
    /// The new process could not go into a cgroup.
    pub(crate) fn cgroup(error: &CgroupError) -> Self {
        let (subject, errno) = match error {
            CgroupError::Io { path, source, .. } => {
                (path.display().to_string(), Errno::from_io_error(source))
            }
            other => (other.to_string(), None),
        };
        let errno = errno.unwrap_or(Errno::IO).raw_os_error();
        Self::System { stage: Stage::Cgroup, subject, detail: None, errno }
    }
}

impl From<Failure> for SpawnError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::System { stage, subject, detail, errno } => {
                Self::System { stage, subject, detail, source: std::io::Error::from_raw_os_error(errno) }
            }
            Failure::NotInPath(name) => Self::NotInPath(name),
            Failure::NoProgram(path) => Self::NoProgram(path),
            Failure::NoInterpreter(path) => Self::NoInterpreter(path),
            Failure::NotExecutable(path) => Self::NotExecutable(path),
            Failure::Directory(path) => Self::Directory(path),
            Failure::Format(path) => Self::Format(path),
            Failure::User(error) => Self::User(error),
            Failure::NotDirectory(path) => Self::NotDirectory(path),
            Failure::Hook(what) => Self::Hook(what),
            Failure::Unsupported(what) => Self::NotHere(what),
            Failure::Orphaned => Self::Died(0),
        }
    }
}

/// One side.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Keeps it clear of the numbers that standard streams will take.
    pub(crate) fn above_standard_streams(self) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 3).map(Self)
    }

    /// A copy clear of the numbers below.
    pub(crate) fn above(&self, number: i32) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, number).map(Self)
    }

    /// The caller's end of a connection to a gate.
    pub(crate) fn of(connection: OwnedFd) -> Self {
        Self(connection)
    }

    /// Goes on with another caller, under the number it has.
    pub(crate) fn replace(&mut self, connection: &OwnedFd) -> Result<(), Errno> {
        rustix::io::dup3(connection, &mut self.0, rustix::io::DupFlags::CLOEXEC)
    }

    /// Goes on, with a file to read.
    pub(crate) fn answer(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        cata_sys::message::send(self.0.as_fd(), b"g", &[file])
    }

    /// `None`: the caller is gone.
    pub(crate) fn wait_for_answer(&self) -> Result<Option<OwnedFd>, Errno> {
        let received = cata_sys::message::receive(self.0.as_fd(), 1, 1)?;
        Ok(received.and_then(|(_, mut files)| files.pop()))
    }

    pub(crate) fn go(&self) -> Result<(), Errno> {
        rustix::net::send(&self.0, b"g", SendFlags::NOSIGNAL).map(drop)
    }

    /// `false`: the caller is gone.
    pub(crate) fn wait_for_go(&self) -> Result<bool, Errno> {
        let mut byte = [0u8; 1];
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()));
        Ok(received?.0 == 1)
    }

    /// Whether the other side has closed, for example by dying.
    pub(crate) fn is_orphaned(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut watched = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&now)));
        polled.is_err() || watched[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
    }

    pub(crate) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.into_iter().collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// `None`: the other side has closed.
    pub(crate) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
        let mut bytes = vec![0u8; 16 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?
        .bytes;
        if length == 0 {
            return Ok(None);
        }
        let mut fd = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        let message = serde_json::from_slice(&bytes[..length]).map_err(|_| Errno::BADMSG)?;
        Ok(Some((message, fd)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
