//! The guest's end of the channel: frames out of and into a port that never blocks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_guest::protocol::{Decoder, Frame};
use rustix::io::Errno;

use crate::boot::BootError;

/// With so much waiting to be sent, nothing more is read from processes.
const FULL: usize = 256 * 1024;

/// See the module.
pub(crate) struct Link {
    port: OwnedFd,
    decoder: Decoder,
    waiting: Vec<u8>,
    /// The host has been heard: from then on the end of the stream is its end.
    heard: bool,
}

impl Link {
    pub(crate) fn new(port: OwnedFd) -> Self {
        Self { port, decoder: Decoder::default(), waiting: Vec::new(), heard: false }
    }

    /// Queues a frame and sends what goes.
    pub(crate) fn send(&mut self, frame: &Frame) -> Result<(), BootError> {
        frame.write(&mut self.waiting);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), BootError> {
        let mut sent = 0;
        while sent < self.waiting.len() {
            let piece = &self.waiting[sent..self.waiting.len().min(sent + 32 * 1024)];
            match rustix::io::write(&self.port, piece) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(crate::boot::failed("write to the host")(error)),
            }
        }
        self.waiting.drain(..sent);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= FULL
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the host has spoken yet: before, its not being there is no news.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard
    }

    /// Takes what has arrived.
    pub(crate) fn read(&mut self) -> Result<(), BootError> {
        let mut piece = [0_u8; 32 * 1024];
        loop {
            match rustix::io::read(&self.port, &mut piece) {
                // The port reads as ended as long as the host has not opened it.
                Ok(0) if !self.heard => return Ok(()),
                Ok(0) => return Err(BootError::Gone),
                Ok(length) => {
                    self.heard = true;
                    self.decoder.feed(&piece[..length]);
                    if length < piece.len() {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(crate::boot::failed("read from the host")(error)),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Frame>, BootError> {
        Ok(self.decoder.take()?)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
