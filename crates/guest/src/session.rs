//! One process of the container and its streams, from its start to its last byte.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use cata_guest::protocol::{Allowance, Failed, Frame, PIECE, ProtocolError, Stream, WINDOW};
use cata_runtime::plan::WindowSize;
use cata_runtime::{SpawnError, Spawned};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// What a background process that holds the output open may delay the end by.
const DRAIN: Duration = Duration::from_millis(250);
/// For so long a signal that means nothing yet is kept for a handler that is about to be installed.
const GRACE: Duration = Duration::from_secs(1);

/// Output of the process.
struct Side {
    stream: Stream,
    fd: OwnedFd,
    allowance: Allowance,
}

/// Input to it.
struct Input {
    fd: OwnedFd,
    waiting: VecDeque<u8>,
    ended: bool,
    /// What the host may still send.
    granted: Allowance,
}

/// See the module.
pub(crate) struct Session {
    pub(crate) number: u32,
    pub(crate) pid: i32,
    pidfd: OwnedFd,
    sides: Vec<Side>,
    input: Option<Input>,
    terminal: Option<OwnedFd>,
    exit: Option<(i32, Instant)>,
    /// Signals the kernel would drop, and until when they are kept.
    kept: Vec<(i32, Instant)>,
}

/// The process' ends of its streams, and ours.
pub(crate) struct Pipes {
    pub(crate) theirs: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    outputs: Vec<(Stream, OwnedFd)>,
}

impl Pipes {
    /// Nothing, for a process that gets a terminal.
    pub(crate) fn none() -> Result<Self, Errno> {
        let null = || {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        };
        Ok(Self { theirs: [null()?, null()?, null()?], stdin: None, outputs: Vec::new() })
    }

    /// Three pipes.
    pub(crate) fn new() -> Result<Self, Errno> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, ours), (out, stdout), (err, stderr)) = (pipe()?, pipe()?, pipe()?);
        for fd in [&ours, &out, &err] {
            nonblocking(fd)?;
        }
        Ok(Self {
            theirs: [stdin, stdout, stderr],
            stdin: Some(ours),
            outputs: vec![(Stream::Stdout, out), (Stream::Stderr, err)],
        })
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}

impl Session {
    pub(crate) fn new(number: u32, spawned: Spawned, pipes: Pipes) -> Result<Self, Errno> {
        let (mut stdin, mut outputs) = (pipes.stdin, pipes.outputs);
        if let Some(terminal) = &spawned.terminal {
            nonblocking(terminal)?;
            stdin = Some(terminal.try_clone().map_err(|_| Errno::MFILE)?);
            outputs = vec![(Stream::Stdout, terminal.try_clone().map_err(|_| Errno::MFILE)?)];
        }
        let side = |(stream, fd)| Side { stream, fd, allowance: Allowance::default() };
        Ok(Self {
            number,
            pid: spawned.pid.as_raw_nonzero().get(),
            pidfd: spawned.pidfd,
            sides: outputs.into_iter().map(side).collect(),
            input: stdin.map(|fd| Input {
                fd,
                waiting: VecDeque::new(),
                ended: false,
                granted: Allowance::default(),
            }),
            terminal: spawned.terminal,
            exit: None,
            kept: Vec::new(),
        })
    }

    /// The process.
    pub(crate) fn process(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Outputs that may be read now.
    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sides.iter().filter(|side| side.allowance.now() > 0).map(|side| side.fd.as_fd())
    }

    /// The input, if something waits for it.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|input| !input.waiting.is_empty()).map(|input| input.fd.as_fd())
    }

    /// When something is to be done though nothing happens.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let drained = self.exit.map(|(_, at)| (at + DRAIN).saturating_duration_since(Instant::now()));
        let kept = (!self.kept.is_empty()).then(|| Duration::from_millis(50));
        [drained, kept].into_iter().flatten().min()
    }

    /// A frame with what can be read of one stream; `None`: nothing now.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut piece = [0_u8; PIECE];
        let mut at = 0;
        while at < self.sides.len() {
            let side = &mut self.sides[at];
            let most = side.allowance.now();
            if most == 0 {
                at += 1;
                continue;
            }
            match rustix::io::read(&side.fd, &mut piece[..most]) {
                Ok(length @ 1..) => {
                    // No more than `most` was read.
                    let _ = side.allowance.spend(length);
                    let frame = Frame::data(self.number, side.stream, &piece[..length]);
                    // The other stream has its turn next.
                    self.sides.rotate_left(1);
                    return Some(frame);
                }
                Err(Errno::AGAIN) => at += 1,
                Err(Errno::INTR) => {}
                // A terminal whose last user closed it says EIO.
                Ok(0) | Err(_) => {
                    let side = self.sides.remove(at);
                    return Some(Frame::eof(self.number, side.stream));
                }
            }
        }
        None
    }

    /// Bytes from the host for the process.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        // A process that closed its input: what comes for it goes nowhere.
        let Some(input) = &mut self.input else { return Ok(()) };
        input.granted.spend(bytes.len())?;
        input.waiting.extend(bytes);
        Ok(())
    }

    pub(crate) fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ended = true;
        }
    }

    /// Passes input on; the frame grants the host as much again.
    pub(crate) fn write(&mut self) -> Option<Frame> {
        let input = self.input.as_mut()?;
        let mut written = 0;
        let mut broken = false;
        while !input.waiting.is_empty() {
            let (first, _) = input.waiting.as_slices();
            match rustix::io::write(&input.fd, first) {
                Ok(length) => {
                    input.waiting.drain(..length);
                    written += length;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    written += input.waiting.len();
                    input.waiting.clear();
                    broken = true;
                }
            }
        }
        let grant = u32::try_from(written).unwrap_or(WINDOW);
        // Never more than was spent.
        let _ = input.granted.earn(grant);
        // A terminal's input has no end but the end of the terminal.
        let over = input.ended && input.waiting.is_empty() && self.terminal.is_none();
        if broken || over {
            self.input = None;
        }
        (written > 0).then(|| Frame::credit(self.number, Stream::Stdin, grant))
    }

    pub(crate) fn granted(&mut self, stream: Stream, bytes: u32) -> Result<(), ProtocolError> {
        match self.sides.iter_mut().find(|side| side.stream == stream) {
            Some(side) => side.allowance.earn(bytes),
            // It has ended meanwhile.
            None => Ok(()),
        }
    }

    /// Sends a signal, and tells whether the kernel dropped it.
    pub(crate) fn signal(&mut self, signal: i32) -> Frame {
        let dropped = cata_runtime::signal::is_dropped(self.pid, signal);
        if dropped {
            self.kept.push((signal, Instant::now() + GRACE));
        } else {
            // It may have ended meanwhile, and a number that is no signal does nothing.
            let _ = cata_sys::pidfd::signal(self.pidfd.as_fd(), signal);
        }
        Frame::fate(self.number, signal, dropped)
    }

    /// Signals for which there is a handler by now.
    pub(crate) fn signal_again(&mut self) -> Vec<Frame> {
        let now = Instant::now();
        let (pid, pidfd, number) = (self.pid, &self.pidfd, self.number);
        let mut news = Vec::new();
        self.kept.retain(|(signal, until)| {
            if cata_runtime::signal::is_dropped(pid, *signal) {
                return now < *until;
            }
            let _ = cata_sys::pidfd::signal(pidfd.as_fd(), *signal);
            news.push(Frame::fate(number, *signal, false));
            false
        });
        news
    }

    /// Nobody listens: the terminal hangs up, and the process and its session are killed.
    pub(crate) fn hang_up(&mut self) {
        self.sides.clear();
        self.input = None;
        self.terminal = None;
        let _ = cata_sys::pidfd::signal(self.pidfd.as_fd(), 9);
        if self.exit.is_none()
            && let Some(session) = rustix::process::Pid::from_raw(self.pid)
        {
            // Not reaped yet, so that the number is its own.
            let _ = rustix::process::kill_process_group(session, rustix::process::Signal::KILL);
        }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            let WindowSize { rows: ws_row, columns: ws_col } = WindowSize { rows, columns };
            let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            // Fails for no terminal.
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    pub(crate) fn reaped(&mut self, code: i32) {
        self.exit = Some((code, Instant::now()));
        self.kept.clear();
    }

    /// The exit code, when the process has ended and everything it wrote was sent.
    pub(crate) fn over(&self) -> Option<i32> {
        let (code, at) = self.exit?;
        let late = at.elapsed() >= DRAIN;
        // What waits only for the host is waited for: the host has its own deadline.
        let blocked = self.sides.iter().any(|side| side.allowance.now() == 0);
        (self.sides.is_empty() || (late && !blocked)).then_some(code)
    }
}

/// The runtime's error as it travels.
pub(crate) fn failure(error: &SpawnError) -> Failed {
    use std::error::Error as _;
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    let message: String = message.chars().take(4096).collect();
    Failed { message, hint: error.hint().map(str::to_owned), exit_code: error.exit_code() }
}
