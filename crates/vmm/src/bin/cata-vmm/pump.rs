//! One session's streams at the host's end: this process' standard streams on one side, frames on the other.
//!
//! The descriptors may be a user's own, shared with a shell: they are never made non-blocking. Reads and writes
//! happen only when poll said that they go, and are small enough not to wait.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use cata_guest::protocol::{Allowance, Frame, Kind, ProtocolError, Stream, WINDOW};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What a pipe takes whole when poll says that it takes anything.
const WRITE: usize = 4096;

#[derive(Default)]
struct Output {
    waiting: VecDeque<u8>,
    granted: Allowance,
    broken: bool,
}

/// See the module.
pub(crate) struct Pump {
    session: u32,
    terminal: bool,
    input_open: bool,
    allowance: Allowance,
    outputs: [Output; 2],
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Pump {
    pub(crate) fn new(session: u32, terminal: bool) -> Self {
        Self {
            session,
            terminal,
            input_open: true,
            allowance: Allowance::default(),
            outputs: [Output::default(), Output::default()],
        }
    }

    fn output(stream: Stream) -> Result<usize, ProtocolError> {
        match stream {
            Stream::Stdout => Ok(0),
            Stream::Stderr => Ok(1),
            Stream::Stdin => Err(ProtocolError::Turn(Kind::Data)),
        }
    }

    fn fd(at: usize) -> BorrowedFd<'static> {
        if at == 0 { rustix::stdio::stdout() } else { rustix::stdio::stderr() }
    }

    /// `Data`, `Eof` and `Credit` of the session.
    pub(crate) fn take(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match frame.kind {
            Kind::Data => {
                let (stream, bytes) = frame.stream()?;
                let output = &mut self.outputs[Self::output(stream)?];
                output.granted.spend(bytes.len())?;
                output.waiting.extend(bytes);
            }
            Kind::Credit => {
                let (Stream::Stdin, bytes) = frame.granted()? else {
                    return Err(ProtocolError::Turn(Kind::Credit));
                };
                self.allowance.earn(bytes)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What to wait for.
    pub(crate) fn watched(&self) -> Vec<PollFd<'static>> {
        let mut watched = Vec::new();
        if self.input_open && self.allowance.now() > 0 {
            watched.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        for (at, output) in self.outputs.iter().enumerate() {
            if !output.waiting.is_empty() {
                watched.push(PollFd::from_borrowed_fd(Self::fd(at), PollFlags::OUT));
            }
        }
        watched
    }

    /// Moves what goes without waiting; frames for the guest come out.
    pub(crate) fn exchange(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.read(&mut frames);
        for (at, stream) in STREAMS.into_iter().enumerate() {
            let written = self.write(at);
            if written > 0 {
                let grant = u32::try_from(written).unwrap_or(WINDOW);
                // Never more than was spent.
                let _ = self.outputs[at].granted.earn(grant);
                frames.push(Frame::credit(self.session, stream, grant));
            }
        }
        frames
    }

    fn read(&mut self, frames: &mut Vec<Frame>) {
        let most = self.allowance.now();
        if !self.input_open || most == 0 || !is_ready(rustix::stdio::stdin(), PollFlags::IN) {
            return;
        }
        let mut piece = vec![0_u8; most];
        match rustix::io::read(rustix::stdio::stdin(), &mut piece) {
            Ok(length @ 1..) => {
                // No more than there was.
                let _ = self.allowance.spend(length);
                frames.push(Frame::data(self.session, Stream::Stdin, &piece[..length]));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                self.input_open = false;
                if !self.terminal {
                    frames.push(Frame::eof(self.session, Stream::Stdin));
                }
            }
        }
    }

    fn write(&mut self, at: usize) -> usize {
        let output = &mut self.outputs[at];
        let mut written = 0;
        while !output.waiting.is_empty() {
            let (first, _) = output.waiting.as_slices();
            let piece = first.len().min(WRITE);
            if output.broken {
                // Nobody reads it any more: the process is not to know.
                output.waiting.drain(..piece);
                written += piece;
                continue;
            }
            if !is_ready(Self::fd(at), PollFlags::OUT) {
                break;
            }
            match rustix::io::write(Self::fd(at), &first[..piece]) {
                Ok(length) => {
                    output.waiting.drain(..length);
                    written += length;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => output.broken = true,
            }
        }
        written
    }

    /// The process has ended: what it wrote last is written, but nobody is waited for beyond this time.
    pub(crate) fn finish(&mut self, within: Duration) {
        let until = Instant::now() + within;
        self.input_open = false;
        loop {
            self.exchange();
            let mut watched = self.watched();
            let left = until.saturating_duration_since(Instant::now());
            if watched.is_empty() || left.is_zero() {
                return;
            }
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let _ = poll(&mut watched, Some(&left));
        }
    }

    /// A frame with the size of this process' terminal.
    pub(crate) fn size(&self) -> Option<Frame> {
        let size = tcgetwinsize(rustix::stdio::stdin()).ok().filter(|_| self.terminal)?;
        Some(Frame::resize(self.session, size.ws_row, size.ws_col))
    }
}

fn is_ready(fd: BorrowedFd<'_>, what: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(fd.as_fd(), what)];
    matches!(poll(&mut watched, Some(&now)), Ok(1..))
}

/// The guest's terminal does what terminals do; this end of ours passes bytes on as they are.
pub(crate) fn make_raw() {
    if let Ok(mut settings) = tcgetattr(rustix::stdio::stdin()) {
        Termios::make_raw(&mut settings);
        // It is a terminal, as was just seen.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &settings);
    }
}
