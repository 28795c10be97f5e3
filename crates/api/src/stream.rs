//! Streams of a process on a connection that was taken over: raw with a terminal, else each piece of output behind
//! eight bytes that say whose it is and how long.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::call::Line;
use crate::refusal::{Outcome, Refusal};

/// Bytes that are passed on at once.
const PIECE: usize = 32 * 1024;

/// Streams of a process.
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    /// With the number that stands in front of each piece.
    pub(crate) outputs: Vec<(u8, OwnedFd)>,
    pub(crate) terminal: bool,
    pub(crate) keys: Keys,
}

/// Passes streams on until they end, the client has gone or detached, or `ended` says so and nothing is left. The client
/// sees the end after `before_the_end`.
pub(crate) fn converse(
    line: Line,
    streams: Streams,
    ended: Option<BorrowedFd<'_>>,
    before_the_end: impl FnOnce(),
) {
    let Line { socket, early } = line;
    let Streams { stdin, outputs, terminal, keys } = streams;
    if let (Some(stdin), Ok(copy)) = (stdin, socket.try_clone()) {
        // It ends with the connection, or with what it writes to.
        let spawned = std::thread::Builder::new().name("input".to_owned()).spawn(move || {
            pass_input(copy, &early, File::from(stdin), terminal.then_some(keys));
        });
        if spawned.is_err() {
            return;
        }
    }
    pass_output(&socket, outputs, !terminal, ended);
    before_the_end();
    // Another thread may still hold the connection.
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

/// One message instead of a process's output.
pub(crate) fn say(line: &Line, message: &str, framed: bool) {
    let mut socket = &line.socket;
    let text = format!("{message}\r\n");
    let head = frame(2, text.len());
    // Who has gone need not hear it.
    let _ =
        socket.write_all(if framed { &head } else { &[] }).and_then(|()| socket.write_all(text.as_bytes()));
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

/// Whether the other end has hung up for good.
pub(crate) fn is_gone(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn pass_output(
    mut socket: &UnixStream,
    mut outputs: Vec<(u8, OwnedFd)>,
    framed: bool,
    ended: Option<BorrowedFd<'_>>,
) {
    let mut piece = vec![0_u8; PIECE];
    while !outputs.is_empty() {
        let ready: Vec<PollFlags> = {
            let mut fds = vec![PollFd::new(socket, PollFlags::empty())];
            fds.push(match &ended {
                Some(fd) => PollFd::from_borrowed_fd(*fd, PollFlags::IN),
                None => PollFd::new(socket, PollFlags::empty()),
            });
            fds.extend(outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => fds.iter().map(PollFd::revents).collect(),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            }
        };
        if ready[0].intersects(PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        if ready[2..].iter().all(PollFlags::is_empty) {
            // Nothing is left of a process that has ended; what holds its pipes open is not waited for.
            return;
        }
        for at in (0..outputs.len()).rev() {
            if ready[at + 2].is_empty() {
                continue;
            }
            let (number, fd) = &outputs[at];
            let length = match rustix::io::read(fd, &mut piece) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                // A terminal without processes says EIO.
                Ok(0) | Err(_) => {
                    outputs.remove(at);
                    continue;
                }
                Ok(length) => length,
            };
            let sent = match framed {
                true => socket
                    .write_all(&frame(*number, length))
                    .and_then(|()| socket.write_all(&piece[..length])),
                false => socket.write_all(&piece[..length]),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// PURE: what stands in front of a piece of output.
pub(crate) fn frame(number: u8, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}

fn pass_input(mut socket: UnixStream, early: &[u8], mut stdin: File, keys: Option<Keys>) {
    let mut keys = keys;
    let mut pass = |bytes: &[u8]| -> bool {
        let (bytes, detached) = match &mut keys {
            Some(keys) => keys.filter(bytes),
            None => (bytes.to_vec(), false),
        };
        write_all(&mut stdin, &bytes) && !detached
    };
    let mut piece = vec![0_u8; PIECE];
    let mut go_on = early.is_empty() || pass(early);
    while go_on {
        match socket.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => go_on = pass(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    if keys.is_some_and(|keys| keys.detached) {
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

/// The other end may not have made its end a blocking one.
fn write_all(to: &mut File, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return false,
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
                if poll(&mut fds, None).is_err_and(|error| error != Errno::INTR) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// The keys that detach, and how many of them have been typed.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    sequence: Vec<u8>,
    typed: usize,
    detached: bool,
}

impl Keys {
    /// As clients write them: `ctrl-p,ctrl-q`; without any, Docker's.
    pub(crate) fn parse(text: Option<&str>) -> Outcome<Self> {
        let text = text.unwrap_or("ctrl-p,ctrl-q");
        let key = |word: &str| match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
            (Some([letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')]), _) => {
                Some(letter.to_ascii_uppercase() & 0x1f)
            }
            (None, [one]) => Some(*one),
            _ => None,
        };
        let sequence: Option<Vec<u8>> = text.split(',').map(key).collect();
        let sequence =
            sequence.ok_or_else(|| Refusal::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { sequence, typed: 0, detached: false })
    }

    /// What of `bytes` is to be passed on, and whether the keys were typed.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.sequence.get(self.typed) != Some(byte) {
                // Not the keys after all.
                passed.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
            }
            if self.sequence.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    self.detached = true;
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_detach_and_what_only_begins_like_them_is_passed_on() {
        let mut keys = Keys::parse(None).unwrap();
        assert_eq!(keys.filter(b"a\x10b"), (b"a\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x11y"), (b"\x10".to_vec(), true));
        assert_eq!(Keys::parse(Some("ctrl-a,x")).unwrap().sequence, [1, b'x']);
        assert!(Keys::parse(Some("ctrl-")).is_err());
    }

    #[test]
    fn frames_are_dockers() {
        assert_eq!(frame(2, 258), [2, 0, 0, 0, 0, 0, 1, 2]);
    }
}
