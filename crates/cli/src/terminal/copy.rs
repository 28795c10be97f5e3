//! Bytes between our standard streams and a container's, until the container's side closes.
//!
//! One loop around `poll`, no thread: input is only read when the container's side can take it, so that a
//! container that reads nothing cannot block its own output.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};

use super::detach::{Keys, Matcher, Typed};
use super::{Link, Parting};
use crate::render::error::Failure;

/// A pipe that is writable takes this much without blocking (PIPE_BUF).
const INPUT_CHUNK: usize = 4096;
const OUTPUT_CHUNK: usize = 64 * 1024;

/// Copies until both outputs are closed (or, with none, the input), the keys were typed, or `ended` is
/// readable and nothing more has arrived: by then the process is over and its output is all here, though a
/// child of its own may keep the other side open.
pub(crate) fn run(link: Link, keys: &Keys, ended: BorrowedFd<'_>) -> Result<Parting, Failure> {
    let stdin = std::io::stdin();
    let Link { input, output, errors, window } = link;
    let mut streams =
        Streams { input, output, errors, tty: window.is_some(), pending: Vec::new(), own_input_open: true };
    drop(window);
    let mut matcher = Matcher::new(keys);
    let watch_input_only = streams.output.is_none() && streams.errors.is_none();
    let mut over = false;
    loop {
        let closed = streams.output.is_none() && streams.errors.is_none();
        if closed && (!watch_input_only || streams.input.is_none() || over) {
            return Ok(Parting::Ended);
        }
        let ready = streams.poll(stdin.as_fd(), (!over).then_some(ended))?;
        if over && !ready.output && !ready.errors {
            return Ok(Parting::Ended);
        }
        over |= ready.ended;
        if ready.output {
            pump(&mut streams.output, &mut std::io::stdout().lock())?;
        }
        if ready.errors {
            pump(&mut streams.errors, &mut std::io::stderr().lock())?;
        }
        if ready.broken {
            // Nobody reads any more.
            streams.input = None;
        }
        if ready.writable {
            streams.write_pending();
        }
        if ready.typed && streams.take_typed(stdin.as_fd(), &mut matcher) == Some(Parting::Detached) {
            return Ok(Parting::Detached);
        }
    }
}

struct Streams {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    tty: bool,
    /// Typed but not yet taken by the container.
    pending: Vec<u8>,
    own_input_open: bool,
}

#[derive(Default)]
struct Ready {
    ended: bool,
    output: bool,
    errors: bool,
    typed: bool,
    writable: bool,
    broken: bool,
}

impl Streams {
    /// Waits until something can be done; without `ended` to wait for, only looks.
    fn poll(&self, stdin: BorrowedFd<'_>, ended: Option<BorrowedFd<'_>>) -> Result<Ready, Failure> {
        enum What {
            Ended,
            Output,
            Errors,
            Typed,
            Input,
        }
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(5);
        let mut whats = Vec::with_capacity(5);
        if let Some(fd) = ended {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            whats.push(What::Ended);
        }
        if let Some(fd) = &self.output {
            fds.push(PollFd::new(fd, PollFlags::IN));
            whats.push(What::Output);
        }
        if let Some(fd) = &self.errors {
            fds.push(PollFd::new(fd, PollFlags::IN));
            whats.push(What::Errors);
        }
        if let Some(fd) = &self.input {
            // Without pending bytes only its end is of interest.
            let flags = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(fd, flags));
            whats.push(What::Input);
            if self.own_input_open && self.pending.is_empty() {
                fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                whats.push(What::Typed);
            }
        }
        let look = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, if ended.is_some() { None } else { Some(&look) }) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::io("poll the container's streams", &error.into())),
        }
        let mut ready = Ready::default();
        for (fd, what) in fds.iter().zip(whats) {
            let events = fd.revents();
            match what {
                What::Ended => ready.ended = !events.is_empty(),
                What::Output => ready.output = !events.is_empty(),
                What::Errors => ready.errors = !events.is_empty(),
                What::Typed => ready.typed = !events.is_empty(),
                What::Input => {
                    ready.writable = events.contains(PollFlags::OUT);
                    ready.broken = events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
                }
            }
        }
        Ok(ready)
    }

    /// Reads what was typed and passes it on.
    fn take_typed(&mut self, stdin: BorrowedFd<'_>, matcher: &mut Matcher<'_>) -> Option<Parting> {
        let mut buffer = [0; INPUT_CHUNK];
        match read(stdin, &mut buffer) {
            Ok(0) => self.end_input(),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that went away is an end of input too.
            Err(_) => self.end_input(),
            Ok(count) => match matcher.feed(buffer.get(..count).unwrap_or_default()) {
                Typed::Forward(bytes) => self.pending = bytes,
                Typed::Detach(bytes) => {
                    self.pending = bytes;
                    self.write_pending();
                    return Some(Parting::Detached);
                }
            },
        }
        None
    }

    /// Our input has ended: the container's does too, unless it is a terminal, which lives on.
    fn end_input(&mut self) {
        self.own_input_open = false;
        if !self.tty {
            self.input = None;
        }
    }

    fn write_pending(&mut self) {
        let Some(fd) = &self.input else {
            self.pending.clear();
            return;
        };
        // A terminal's buffer is smaller than a pipe's; whatever is not taken stays pending.
        let chunk = self.pending.get(..self.pending.len().min(if self.tty { 256 } else { INPUT_CHUNK }));
        match write(fd, chunk.unwrap_or_default()) {
            Ok(count) => {
                self.pending.drain(..count);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => {
                self.pending.clear();
                self.input = None;
            }
        }
    }
}

/// Moves what has arrived; closes the source at its end.
fn pump(source: &mut Option<OwnedFd>, sink: &mut dyn std::io::Write) -> Result<(), Failure> {
    let Some(fd) = source else { return Ok(()) };
    let mut buffer = [0; OUTPUT_CHUNK];
    match read(fd.as_fd(), &mut buffer) {
        Ok(0) => *source = None,
        Ok(count) => {
            let bytes = buffer.get(..count).unwrap_or_default();
            sink.write_all(bytes).and_then(|()| sink.flush()).map_err(Failure::output)?;
        }
        Err(Errno::INTR | Errno::AGAIN) => {}
        // The last holder of a terminal's other side has gone.
        Err(Errno::IO) => *source = None,
        Err(error) => return Err(Failure::io("read the container's output", &error.into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::io::{read, write};
    use rustix::pipe::pipe;

    use super::{Streams, pump};
    use crate::terminal::detach::{Keys, Matcher};

    fn streams(input: std::os::fd::OwnedFd, tty: bool) -> Streams {
        Streams {
            input: Some(input),
            output: None,
            errors: None,
            tty,
            pending: Vec::new(),
            own_input_open: true,
        }
    }

    #[test]
    fn end_of_our_input_closes_a_pipe_but_not_a_terminal() {
        for tty in [false, true] {
            let (reader, writer) = pipe().unwrap();
            let (own_reader, own_writer) = pipe().unwrap();
            drop(own_writer);
            let mut streams = streams(writer, tty);
            let keys = Keys::default();
            assert_eq!(streams.take_typed(own_reader.as_fd(), &mut Matcher::new(&keys)), None);
            assert_eq!(streams.input.is_some(), tty);
            assert!(!streams.own_input_open);
            drop(reader);
        }
    }

    #[test]
    fn typed_bytes_wait_until_the_container_takes_them() {
        let (reader, writer) = pipe().unwrap();
        let (own_reader, own_writer) = pipe().unwrap();
        write(&own_writer, b"hello").unwrap();
        let mut streams = streams(writer, false);
        let keys = Keys::default();
        streams.take_typed(own_reader.as_fd(), &mut Matcher::new(&keys));
        assert_eq!(streams.pending, b"hello");
        assert!(streams.poll(own_reader.as_fd(), None).unwrap().writable);
        streams.write_pending();
        let mut buffer = [0; 16];
        assert_eq!(read(&reader, &mut buffer).unwrap(), 5);
        assert!(streams.pending.is_empty());
    }

    #[test]
    fn a_reader_that_left_is_noticed() {
        let (reader, writer) = pipe().unwrap();
        let (own_reader, _own_writer) = pipe().unwrap();
        drop(reader);
        assert!(streams(writer, false).poll(own_reader.as_fd(), None).unwrap().broken);
    }

    #[test]
    fn pump_moves_bytes_and_closes_at_the_end() {
        let (reader, writer) = pipe().unwrap();
        write(&writer, b"out").unwrap();
        drop(writer);
        let mut source = Some(reader);
        let mut sink = Vec::new();
        pump(&mut source, &mut sink).unwrap();
        assert!(source.is_some());
        pump(&mut source, &mut sink).unwrap();
        assert!(source.is_none());
        assert_eq!(sink, b"out");
    }
}
