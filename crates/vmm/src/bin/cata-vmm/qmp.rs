//! QEMU's control socket, for the one thing it is asked: how much memory the guest shall have.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The socket.
pub(crate) struct Qmp(OwnedFd);

impl Qmp {
    /// QEMU takes commands after this one.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let qmp = Self(socket);
        qmp.send("{\"execute\":\"qmp_capabilities\"}\n");
        qmp
    }

    /// So many bytes.
    pub(crate) fn set_memory(&self, bytes: u64) {
        self.send(&format!("{{\"execute\":\"balloon\",\"arguments\":{{\"value\":{bytes}}}}}\n"));
    }

    /// Answers are of no use, and must not pile up.
    pub(crate) fn drain(&self) {
        let mut piece = [0_u8; 4096];
        while matches!(rustix::net::recv(&self.0, &mut piece, RecvFlags::DONTWAIT), Ok((1.., _))) {}
    }

    /// Lines this short fit into the socket, whose other end reads them; if it does not, its end is near.
    fn send(&self, line: &str) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while rustix::net::send(self.0.as_fd(), line.as_bytes(), flags) == Err(Errno::INTR) {}
    }
}
