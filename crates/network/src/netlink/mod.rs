//! Netlink: requests encoded ([`message`], [`route`], [`nftables`]), answers decoded ([`decode`]), and the
//! exchange of the two.

pub mod decode;
pub mod message;
pub mod nftables;
pub mod route;

use std::io;

use cata_sys::netlink::Socket;

use decode::{Answer, Malformed};
use message::Batch;

/// Why an exchange did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused one of the messages.
    #[error("{}{}", io::Error::from_raw_os_error(*.errno), .text.as_ref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Refused {
        /// Its error number.
        errno: i32,
        /// Its sentence, on kernels that give one.
        text: Option<String>,
        /// Which message of the batch, from 0.
        message: usize,
    },
    /// The socket could not be used.
    #[error("netlink socket: {0}")]
    Socket(io::Error),
    /// The answer is not a netlink message.
    #[error("malformed netlink answer")]
    Malformed(#[from] Malformed),
}

impl NetlinkError {
    /// The kernel's error number, if it was a refusal.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(source) => source.raw_os_error(),
            Self::Malformed(_) => None,
        }
    }

    /// Whether a privilege is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(code) if code == rustix::io::Errno::PERM.raw_os_error()
            || code == rustix::io::Errno::ACCESS.raw_os_error())
    }

    /// Whether the kernel's error number is this one.
    #[must_use]
    pub fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}

/// A netlink socket that speaks in batches.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
}

impl Channel {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open(protocol: i32) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(protocol).map_err(NetlinkError::Socket)? })
    }

    /// The socket, for calls that only need one of its namespace.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends a batch and returns the first refusal, if any. All messages are tried by `ROUTE`, none takes
    /// effect unless all do in a `NETFILTER` transaction.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub fn apply(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.query(batch, |_, _| {})
    }

    /// As [`Channel::apply`], and hands every message of an answer (its type and body) to `each`.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub fn query(&self, batch: &Batch, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.socket.send(batch.as_bytes()).map_err(NetlinkError::Socket)?;
        let mut buffer = vec![0_u8; 32 * 1024];
        let mut first: Option<NetlinkError> = None;
        while let Some(datagram) = self.socket.receive(&mut buffer).map_err(NetlinkError::Socket)? {
            for answer in decode::answers(datagram) {
                match answer? {
                    Answer::Refused { sequence, errno, text } => {
                        first.get_or_insert(NetlinkError::Refused {
                            errno,
                            text: text.map(str::to_owned),
                            message: sequence.saturating_sub(1) as usize,
                        });
                    }
                    Answer::Message { kind, body } => each(kind, body),
                    Answer::Acknowledged { .. } | Answer::Done => {}
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}
