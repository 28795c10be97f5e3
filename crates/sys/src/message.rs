//! Whole messages with file descriptors over unix sockets (SEQPACKET, SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Most descriptors in one message (the kernel's SCM_MAX_FD is 253).
pub const MOST_DESCRIPTORS: usize = 253;

/// Room for so many descriptors and the control header, in the kernel's alignment.
const fn room(descriptors: usize) -> usize {
    rustix::cmsg_space!(ScmRights(descriptors))
}

/// Two connected ends that keep message boundaries; both close on exec.
///
/// # Errors
/// That of `socketpair`.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message whole. Never raises SIGPIPE.
///
/// # Errors
/// `EAGAIN` on a full non-blocking socket, `EMSGSIZE` when it is too long for the socket's buffer, `EINVAL`
/// for more than [`MOST_DESCRIPTORS`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); room(MOST_DESCRIPTORS)];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A message's bytes and what came with it.
pub type Received = (Vec<u8>, Vec<OwnedFd>);

/// Receives one message; `None` when the other end has closed. Descriptors received close on exec. At most
/// `limit` bytes are accepted, and at most `descriptors` descriptors: a message beyond is `EMSGSIZE`, and
/// whatever came with it is closed.
///
/// # Errors
/// `EAGAIN` on a non-blocking socket without a message, and those of `recvmsg`.
pub fn receive(socket: BorrowedFd<'_>, limit: usize, descriptors: usize) -> Result<Option<Received>, Errno> {
    let length = loop {
        // The true length first, so that nobody has to keep room for the longest.
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let mut nowhere = RecvAncillaryBuffer::default();
        let mut probe = [0_u8; 1];
        match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut probe)], &mut nowhere, flags) {
            Ok(message) => break message.bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    };
    let mut bytes = vec![0_u8; length.min(limit).max(1)];
    let mut space = [MaybeUninit::uninit(); room(MOST_DESCRIPTORS)];
    let mut control = RecvAncillaryBuffer::new(&mut space[..rustix::cmsg_space!(ScmRights(descriptors))]);
    let message = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    };
    let mut received = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            received.extend(fds);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || length > limit {
        return Err(Errno::MSGSIZE);
    }
    if message.bytes == 0 && received.is_empty() {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    Ok(Some((bytes, received)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_arrives_whole_with_descriptors_and_end_is_seen() {
        let (a, b) = pair().expect("pair");
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        send(a.as_fd(), b"hello", &[write.as_fd()]).expect("send");
        send(a.as_fd(), &[7; 5000], &[]).expect("send");
        drop(write);
        let (bytes, fds) = receive(b.as_fd(), 100, 4).expect("receive").expect("message");
        assert_eq!((bytes.as_slice(), fds.len()), (b"hello".as_slice(), 1));
        rustix::io::write(&fds[0], b"x").expect("write");
        let mut got = [0; 1];
        assert_eq!(rustix::io::read(&read, &mut got), Ok(1));
        assert_eq!(receive(b.as_fd(), 100, 4).map(|_| ()), Err(Errno::MSGSIZE));
        drop(a);
        assert!(receive(b.as_fd(), 100, 4).expect("end").is_none());
    }

    #[test]
    fn surplus_descriptors_are_refused_and_closed() {
        let (a, b) = pair().expect("pair");
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        let many = vec![write.as_fd(); 40];
        send(a.as_fd(), b"x", &many).expect("send");
        drop(many);
        drop(write);
        assert_eq!(receive(b.as_fd(), 100, 3).map(|_| ()), Err(Errno::MSGSIZE));
        // Every copy of the write end is gone: the pipe has ended.
        let mut got = [0; 1];
        assert_eq!(rustix::io::read(&read, &mut got), Ok(0));
    }
}
