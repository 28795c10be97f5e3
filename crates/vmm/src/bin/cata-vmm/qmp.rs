//! QEMU's control socket: how much memory the guest shall have, and holding it where it is.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde_json::Value;

/// More than any line of interest.
const LONGEST: usize = 64 << 10;

/// The socket.
pub(crate) struct Qmp {
    socket: OwnedFd,
    /// What was read of a line whose end is not there yet.
    line: Vec<u8>,
}

impl Qmp {
    /// QEMU takes commands after this one.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let qmp = Self { socket, line: Vec::new() };
        qmp.send("{\"execute\":\"qmp_capabilities\"}\n");
        qmp
    }

    /// Readable when QEMU has said something, or has gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// So many bytes.
    pub(crate) fn set_memory(&self, bytes: u64) {
        self.send(&format!("{{\"execute\":\"balloon\",\"arguments\":{{\"value\":{bytes}}}}}\n"));
    }

    /// Stops it; see [`Qmp::has_stopped`].
    pub(crate) fn pause(&self) {
        self.send("{\"execute\":\"stop\"}\n");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.send("{\"execute\":\"cont\"}\n");
    }

    /// Takes what QEMU has said: whether that it has stopped. The rest is of no use, and must not pile up.
    pub(crate) fn has_stopped(&mut self) -> bool {
        let mut stopped = false;
        let mut piece = [0_u8; 4096];
        while let Ok((length @ 1.., _)) = rustix::net::recv(&self.socket, &mut piece, RecvFlags::DONTWAIT) {
            for byte in &piece[..length] {
                if *byte == b'\n' {
                    stopped |= says_stopped(&self.line);
                    self.line.clear();
                } else if self.line.len() < LONGEST {
                    self.line.push(*byte);
                }
            }
        }
        stopped
    }

    /// Lines this short fit into the socket, whose other end reads them; if it does not, its end is near.
    fn send(&self, line: &str) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while rustix::net::send(self.socket.as_fd(), line.as_bytes(), flags) == Err(Errno::INTR) {}
    }
}

fn says_stopped(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|value| value["event"] == "STOP")
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn has_stopped_finds_the_event_among_others_and_over_reads() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut qmp = Qmp::new(ours);
        let _ = rustix::io::write(&theirs, b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\": \"ST");
        assert!(!qmp.has_stopped());
        let _ = rustix::io::write(&theirs, b"OP\"}\r\n{\"event\": \"RESUME\"}\r\nSTOP");
        assert!(qmp.has_stopped());
        assert!(!qmp.has_stopped());
    }
}
