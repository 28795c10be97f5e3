//! The container's standard streams: what it writes goes to the log and, teed, to every attached client.
//!
//! A client that does not read slows the container down, as a terminal would; one that goes away is dropped.
//! When the process has ended nobody is waited for: what is left is moved into the clients' own pipes, which
//! are made large enough for it.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::Driver;
use super::reactor::{Interest, Source};
use crate::launch::StdinPlan;
use crate::log::{Input, Stream};
use crate::protocol::{Failure, FailureKind, Streams};
use crate::stamp::Stamp;
use crate::state::{Phase, What};

/// What is read at once.
const PIECE: usize = 16 * 1024;
/// What a client's pipe is enlarged to when the process has ended; the most an unprivileged pipe may have,
/// so no container can have more waiting in its own.
const LAST_ROOM: usize = 1 << 20;
/// Reads at once before other descriptors have their turn.
const TURNS: u32 = 8;
/// Most attached clients.
const MOST_TAPS: usize = 64;

/// One stream of the container, our end.
struct Side {
    fd: OwnedFd,
    input: Input,
    /// Not read at present, because a client is slow.
    held: bool,
}

/// One attached client's copy of one stream.
struct Tap {
    id: u32,
    stream: Stream,
    fd: OwnedFd,
    pending: Vec<u8>,
}

/// Everything about streams.
#[derive(Default)]
pub(super) struct Output {
    stdout: Option<Side>,
    stderr: Option<Side>,
    taps: Vec<Tap>,
    next: u32,
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// The process in the guest has ended: what it wrote last must be taken, whoever is slow.
    ending: bool,
}

impl Output {
    fn side(&mut self, stream: Stream) -> &mut Option<Side> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref()
    }
}

/// The container's ends.
pub(super) struct Given {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

pub(super) fn null() -> Result<OwnedFd, Failure> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

pub(super) fn failed(error: Errno) -> Failure {
    Failure::new(FailureKind::System, std::io::Error::from(error).to_string())
}

pub(super) fn nonblocking(fd: &OwnedFd) {
    // Fails for no descriptor of ours.
    if let Ok(flags) = fcntl_getfl(fd) {
        let _ = fcntl_setfl(fd, flags | OFlags::NONBLOCK);
    }
}

impl Driver {
    /// New streams for a new process.
    pub(super) fn open_streams(&mut self) -> Result<Given, Failure> {
        if self.terminal {
            return Ok(Given { stdin: null()?, stdout: null()?, stderr: null()? });
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed);
        let stdin = if self.stdin_plan == StdinPlan::Closed {
            null()?
        } else {
            let (theirs, ours) = pipe()?;
            self.output.stdin = Some(ours);
            theirs
        };
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            nonblocking(&fd);
            *self.output.side(stream) = Some(Side { fd, input: Input::new(stream), held: false });
        }
        Ok(Given { stdin, stdout, stderr })
    }

    /// The master side of the container's terminal. It is non-blocking, also for clients that receive a
    /// copy: one file description has one such flag.
    pub(super) fn use_terminal(&mut self, master: OwnedFd) {
        nonblocking(&master);
        if let Ok(fd) = master.try_clone() {
            self.output.stdout = Some(Side { fd, input: Input::new(Stream::Stdout), held: false });
        }
        self.output.terminal = Some(master);
    }

    /// The old one, when another machine has another.
    pub(super) fn forget_terminal(&mut self) {
        if let Some(side) = self.output.stdout.take() {
            self.reactor.remove(side.fd.as_fd());
        }
        self.output.terminal = None;
    }

    pub(super) fn watch_output(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let ready = self
                .output
                .side(stream)
                .as_ref()
                .map(|side| self.reactor.add(&side.fd, Source::Output(stream), Interest::Read));
            if let Some(Err(error)) = ready {
                self.complain(&format!("cannot watch the container's {}: {error}", stream.as_str()));
            }
        }
    }

    /// New ends for a client: what it asked for, as far as there is such a thing.
    pub(super) fn attach(&mut self, wanted: Streams) -> Result<(Streams, Vec<OwnedFd>), Failure> {
        if self.output.taps.len() >= MOST_TAPS {
            return Err(Failure::new(FailureKind::Exhausted, "too many attached clients"));
        }
        let mut given = super::NO_STREAMS;
        let mut fds = Vec::new();
        if wanted.stdin
            && let Some(fd) = self.stdin_for_client()?
        {
            given.stdin = true;
            fds.push(fd);
        }
        for (stream, wanted) in [(Stream::Stdout, wanted.stdout), (Stream::Stderr, wanted.stderr)] {
            if !wanted || (stream == Stream::Stderr && self.terminal) {
                continue;
            }
            let (theirs, fd) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
            nonblocking(&fd);
            let id = self.output.next;
            self.output.next += 1;
            self.reactor.add(&fd, Source::Tap(id), Interest::End).map_err(failed)?;
            self.output.taps.push(Tap { id, stream, fd, pending: Vec::new() });
            match stream {
                Stream::Stdout => given.stdout = true,
                Stream::Stderr => given.stderr = true,
            }
            fds.push(theirs);
        }
        Ok((given, fds))
    }

    fn stdin_for_client(&mut self) -> Result<Option<OwnedFd>, Failure> {
        if let Some(terminal) = &self.output.terminal {
            return terminal
                .try_clone()
                .map(Some)
                .map_err(|e| Failure::new(FailureKind::System, e.to_string()));
        }
        match self.stdin_plan {
            StdinPlan::Closed => Ok(None),
            // The client's copy is the only one: when it closes, the container sees the end.
            StdinPlan::Once => Ok(self.output.stdin.take()),
            StdinPlan::Open => match &self.output.stdin {
                Some(fd) => {
                    fd.try_clone().map(Some).map_err(|e| Failure::new(FailureKind::System, e.to_string()))
                }
                None => Ok(None),
            },
        }
    }

    /// The container wrote something, or closed.
    pub(super) fn read_output(&mut self, stream: Stream) {
        for _ in 0..TURNS {
            if !self.read_once(stream) {
                return;
            }
        }
    }

    /// One read; `false` when there is nothing more to read now.
    fn read_once(&mut self, stream: Stream) -> bool {
        let mut piece = [0_u8; PIECE];
        let Some(side) = self.output.side(stream) else { return false };
        if side.held {
            return false;
        }
        match rustix::io::read(&side.fd, &mut piece) {
            Ok(0) => self.end_of_output(stream),
            Ok(length) => {
                let bytes = &piece[..length];
                if let (Some(log), Some(side)) = (
                    &mut self.log,
                    match stream {
                        Stream::Stdout => &mut self.output.stdout,
                        Stream::Stderr => &mut self.output.stderr,
                    },
                ) {
                    log.take(&mut side.input, bytes, Stamp::now());
                }
                self.tee(stream, bytes);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {}
            // A terminal whose last user closed it says EIO.
            Err(_) => self.end_of_output(stream),
        }
        false
    }

    fn tee(&mut self, stream: Stream, bytes: &[u8]) {
        let mut slow = false;
        let mut gone = Vec::new();
        for tap in self.output.taps.iter_mut().filter(|tap| tap.stream == stream) {
            if !tap.pending.is_empty() {
                // Only when the process has ended and its last output is moved on.
                tap.pending.extend_from_slice(bytes);
                slow = true;
                continue;
            }
            match write_some(&tap.fd, bytes) {
                Ok(written) if written == bytes.len() => {}
                Ok(written) => {
                    tap.pending = bytes[written..].to_vec();
                    self.reactor.change(&tap.fd, Source::Tap(tap.id), Interest::Write);
                    slow = true;
                }
                Err(_) => gone.push(tap.id),
            }
        }
        for id in gone {
            self.drop_tap(id);
        }
        if slow && !self.output.ending && !matches!(self.state.phase, Phase::Draining { .. }) {
            self.hold(stream);
        }
    }

    /// Stops reading a stream. It is taken out of epoll, which would go on reporting its end.
    fn hold(&mut self, stream: Stream) {
        if let Some(side) = self.output.side(stream)
            && !side.held
        {
            side.held = true;
            let side = match stream {
                Stream::Stdout => &self.output.stdout,
                Stream::Stderr => &self.output.stderr,
            };
            if let Some(side) = side {
                self.reactor.remove(side.fd.as_fd());
            }
        }
    }

    fn release(&mut self, stream: Stream) {
        let blocked = self.output.taps.iter().any(|tap| tap.stream == stream && !tap.pending.is_empty());
        let side = match stream {
            Stream::Stdout => &mut self.output.stdout,
            Stream::Stderr => &mut self.output.stderr,
        };
        if let Some(side) = side
            && side.held
            && !blocked
        {
            side.held = false;
            // It was registered before, so that there is room for it.
            let _ = self.reactor.add(&side.fd, Source::Output(stream), Interest::Read);
        }
    }

    /// A client's pipe has room again, or its reader is gone.
    pub(super) fn flush_tap(&mut self, id: u32) {
        let Some(tap) = self.output.taps.iter_mut().find(|tap| tap.id == id) else { return };
        let stream = tap.stream;
        if tap.pending.is_empty() {
            // Nothing but the end is waited for.
            self.drop_tap(id);
            return self.release(stream);
        }
        match write_some(&tap.fd, &tap.pending) {
            Ok(written) => {
                tap.pending.drain(..written);
                if tap.pending.is_empty() {
                    tap.pending = Vec::new();
                    self.reactor.change(&tap.fd, Source::Tap(id), Interest::End);
                }
            }
            Err(_) => self.drop_tap(id),
        }
        self.release(stream);
    }

    fn drop_tap(&mut self, id: u32) {
        if let Some(at) = self.output.taps.iter().position(|tap| tap.id == id) {
            let tap = self.output.taps.swap_remove(at);
            self.reactor.remove(tap.fd.as_fd());
        }
    }

    fn end_of_output(&mut self, stream: Stream) {
        let Some(mut side) = self.output.side(stream).take() else { return };
        self.reactor.remove(side.fd.as_fd());
        if let Some(log) = &mut self.log {
            log.end(&mut side.input, Stamp::now());
        }
        // A client sees the end of a stream when the container closed it, if all was passed on.
        let done: Vec<u32> = self
            .output
            .taps
            .iter()
            .filter(|tap| tap.stream == stream && tap.pending.is_empty())
            .map(|tap| tap.id)
            .collect();
        for id in done {
            self.drop_tap(id);
        }
        self.check_drained();
    }

    fn check_drained(&mut self) {
        let open = self.output.stdout.is_some() || self.output.stderr.is_some();
        if !open && matches!(self.state.phase, Phase::Draining { .. }) {
            self.queue.push_back(What::Drained);
        }
    }

    /// The process in the guest has ended; the machine still passes on what it left.
    pub(super) fn ending(&mut self) {
        self.output.ending = true;
        self.drain();
    }

    /// The process has ended: read what it left.
    pub(super) fn drain(&mut self) {
        for tap in &mut self.output.taps {
            // Where the full size is not granted, what there is must do.
            let _ = fcntl_setpipe_size(&tap.fd, LAST_ROOM);
            if let Ok(written) = write_some(&tap.fd, &tap.pending) {
                tap.pending.drain(..written);
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let side = match stream {
                Stream::Stdout => &mut self.output.stdout,
                Stream::Stderr => &mut self.output.stderr,
            };
            if let Some(side) = side
                && side.held
            {
                side.held = false;
                let _ = self.reactor.add(&side.fd, Source::Output(stream), Interest::Read);
            }
            // No more than a pipe holds: whoever still writes is read by the loop, up to the deadline.
            for _ in 0..LAST_ROOM / PIECE {
                if !self.read_once(stream) {
                    break;
                }
            }
        }
        self.check_drained();
    }

    /// Nothing of the old process' streams is left.
    pub(super) fn close_streams(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(mut side) = self.output.side(stream).take() {
                self.reactor.remove(side.fd.as_fd());
                if let Some(log) = &mut self.log {
                    log.end(&mut side.input, Stamp::now());
                }
            }
        }
        while let Some(tap) = self.output.taps.pop() {
            let _ = write_some(&tap.fd, &tap.pending);
            self.reactor.remove(tap.fd.as_fd());
        }
        self.output.stdin = None;
        self.output.terminal = None;
        self.output.ending = false;
    }
}

/// Writes what goes without waiting.
fn write_some(fd: &OwnedFd, mut bytes: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => {
                written += n;
                bytes = &bytes[n..];
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
