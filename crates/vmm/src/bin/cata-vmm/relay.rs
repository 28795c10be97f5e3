//! The machine's end of the channel, and who speaks through it: the container's own streams, sessions over
//! sockets, questions. A session's socket speaks frames with session 1; here each has a number of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_guest::protocol::{DOCUMENT, Decoder, FIRST, Frame, Kind, ProtocolError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// With so much waiting for the guest, sessions are not listened to.
const FULL: usize = DOCUMENT;
/// A session that does not take its answers is dropped.
const MOST_WAITING: usize = 4 * DOCUMENT;

/// A stream of frames over a socket.
pub(crate) struct Wire {
    socket: OwnedFd,
    decoder: Decoder,
    waiting: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default(), waiting: Vec::new() }
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> Result<(), Errno> {
        frame.write(&mut self.waiting);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        let mut sent = 0;
        let result = loop {
            if sent == self.waiting.len() {
                break Ok(());
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.waiting[sent..], flags) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..sent);
        result
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= FULL
    }

    /// One piece of what has arrived; `false`: the other end has closed.
    pub(crate) fn read(&mut self) -> bool {
        let mut piece = [0_u8; 32 * 1024];
        loop {
            match rustix::net::recv(&self.socket, &mut piece, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((length, _)) => {
                    self.decoder.feed(&piece[..length]);
                    return true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        self.decoder.take()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Somebody who speaks to the guest through this process.
struct Client {
    wire: Wire,
    number: u32,
    /// It has a process in the guest.
    session: bool,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Clients {
    list: Vec<Client>,
    last: u32,
}

impl Clients {
    pub(crate) fn add(&mut self, socket: OwnedFd) {
        // 1 is the container's own process.
        let number = self.last.max(FIRST) + 1;
        self.last = number;
        self.list.push(Client { wire: Wire::new(socket), number, session: false });
    }

    pub(crate) fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.list.iter().map(|client| &client.wire)
    }

    /// What they say, numbered for the guest.
    pub(crate) fn listen(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.list.retain_mut(|client| {
            let mut open = client.wire.flush().is_ok() && client.wire.read();
            loop {
                match client.wire.next() {
                    Ok(Some(mut frame)) => {
                        let may = matches!(frame.kind, Kind::Start | Kind::Ask)
                            || client.session
                                && matches!(
                                    frame.kind,
                                    Kind::Data | Kind::Eof | Kind::Credit | Kind::Signal | Kind::Resize
                                );
                        open &= may;
                        client.session |= frame.kind == Kind::Start;
                        frame.session = client.number;
                        if may {
                            frames.push(frame);
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        open = false;
                        break;
                    }
                }
            }
            if !open && client.session {
                frames.push(Frame::new(Kind::Hangup, client.number, Vec::new()));
            }
            open
        });
        frames
    }

    /// The guest says something to one of them; one that has gone does not miss it.
    pub(crate) fn tell(&mut self, mut frame: Frame) {
        let Some(at) = self.list.iter().position(|client| client.number == frame.session) else { return };
        let client = &mut self.list[at];
        if matches!(frame.kind, Kind::Failed | Kind::Exited) {
            client.session = false;
        }
        frame.session = FIRST;
        if client.wire.send(&frame).is_err() || client.wire.waiting.len() > MOST_WAITING {
            // Its end is noticed when it is listened to.
            client.wire.waiting = Vec::new();
            let _ = rustix::net::shutdown(&client.wire.socket, rustix::net::Shutdown::Both);
        }
    }
}
