//! Netlink sockets: bytes to the kernel and back.
//!
//! The kernel handles a request within the call that sends it, so that every answer is there when
//! [`Socket::send`] returns: nothing here ever waits.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Links, addresses, routes.
pub const ROUTE: i32 = libc::NETLINK_ROUTE;
/// The firewall.
pub const NETFILTER: i32 = libc::NETLINK_NETFILTER;

/// A netlink socket of the network namespace in which it was opened, whoever uses it later.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one for a protocol ([`ROUTE`], [`NETFILTER`]) in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let protocol = u32::try_from(protocol).map_err(|_| Errno::INVAL)?;
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            NonZeroU32::new(protocol).map(Protocol::from_raw),
        )?;
        // Refusals then carry a sentence, and do not repeat the request. Older kernels have neither.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: `on` outlives the call and its size is given.
            let _ = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
        }
        Ok(Self(fd))
    }

    /// Sends complete messages, back to back, to the kernel.
    ///
    /// # Errors
    /// What the kernel says of the call; what it says of the messages is received.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.0, messages, SendFlags::NOSIGNAL))?;
        if sent == messages.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next datagram of answers, or `None` when there is no more.
    ///
    /// # Errors
    /// What the kernel says; `EMSGSIZE` when `buffer` is too small for the datagram.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let length = loop {
            match rustix::net::recv(&self.0, &mut *buffer, flags) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        if length > buffer.len() {
            return Err(Errno::MSGSIZE.into());
        }
        Ok(Some(&buffer[..length]))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
