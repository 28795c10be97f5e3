//! One connection: two sockets, and bytes moved between them within the kernel.
//!
//! Bytes go from socket to pipe to socket (`splice`). A pipe belongs to a direction only while bytes wait in it, so
//! that a connection at rest is two descriptors and no memory.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// Moved at once; a pipe's room.
const PIECE: usize = 64 * 1024;
/// Pieces in a row, after which others have their turn.
const TURNS: usize = 16;
/// Pipes kept for the next.
const SPARE: usize = 16;

/// Empty pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        match self.0.pop() {
            Some(pipe) => Ok(pipe),
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                Ok(Pipe { read, write })
            }
        }
    }

    fn give(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE {
            self.0.push(pipe);
        }
    }
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Until one of its sockets says something.
    Waits,
    /// It had its turn.
    More,
    /// It is done with.
    Over,
}

#[derive(Debug, Default)]
struct Direction {
    /// With this many bytes in it.
    waiting: Option<(Pipe, usize)>,
    ended: bool,
    closed: bool,
}

/// A client, and the container.
#[derive(Debug)]
pub(super) struct Stream {
    client: TcpStream,
    target: TcpStream,
    there: Direction,
    back: Direction,
}

impl Stream {
    /// Begins to connect a client to its target.
    pub(super) fn new(client: TcpStream, target: SocketAddr) -> io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => {
                reset(&client);
                return Err(errno.into());
            }
        }
        let target = TcpStream::from(socket);
        client.set_nonblocking(true)?;
        for socket in [&client, &target] {
            socket.set_nodelay(true)?;
            sockopt::set_socket_keepalive(socket, true)?;
        }
        Ok(Self { client, target, there: Direction::default(), back: Direction::default() })
    }

    pub(super) fn sockets(&self) -> [&TcpStream; 2] {
        [&self.client, &self.target]
    }

    /// Goes as far as possible without waiting.
    pub(super) fn advance(&mut self, pipes: &mut Pipes) -> Progress {
        let there = self.there.advance(&self.client, &self.target, pipes);
        let back = self.back.advance(&self.target, &self.client, pipes);
        match (there, back) {
            (Ok(there), Ok(back)) => {
                let gone =
                    |one: &Direction, from: &TcpStream| one.closed && !matches!(from.take_error(), Ok(None));
                if self.there.closed && self.back.closed {
                    return Progress::Over;
                }
                // Who has said all and then left altogether is not read from any more.
                if gone(&self.there, &self.client) || gone(&self.back, &self.target) {
                    self.sockets().into_iter().for_each(reset);
                    return Progress::Over;
                }
                if there == Progress::More || back == Progress::More {
                    Progress::More
                } else {
                    Progress::Waits
                }
            }
            // Nobody listens, or one of them has gone: the other is told the way the kernel would.
            _ => {
                self.sockets().into_iter().for_each(reset);
                Progress::Over
            }
        }
    }
}

/// Closing it will be a reset instead of an end.
fn reset(socket: &TcpStream) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

impl Direction {
    fn advance(&mut self, from: &TcpStream, to: &TcpStream, pipes: &mut Pipes) -> Result<Progress, Errno> {
        for _ in 0..TURNS {
            if self.closed {
                return Ok(Progress::Waits);
            }
            let Some((pipe, waiting)) = &mut self.waiting else {
                if self.ended {
                    match rustix::net::shutdown(to, Shutdown::Write) {
                        Ok(()) => self.closed = true,
                        // It is not connected yet: it will say so.
                        Err(Errno::NOTCONN) => return Ok(Progress::Waits),
                        Err(errno) => return Err(errno),
                    }
                    continue;
                }
                let pipe = pipes.take()?;
                match moved(from, &pipe.write, PIECE) {
                    Ok(Some(0)) => {
                        self.ended = true;
                        pipes.give(pipe);
                    }
                    Ok(Some(length)) => self.waiting = Some((pipe, length)),
                    Ok(None) | Err(Errno::NOTCONN) => {
                        pipes.give(pipe);
                        return Ok(Progress::Waits);
                    }
                    Err(errno) => return Err(errno),
                }
                continue;
            };
            match moved(&pipe.read, to, *waiting)? {
                None => return Ok(Progress::Waits),
                Some(length) => *waiting = waiting.saturating_sub(length),
            }
            if *waiting == 0
                && let Some((pipe, _)) = self.waiting.take()
            {
                pipes.give(pipe);
            }
        }
        Ok(Progress::More)
    }
}

/// `None`: one side has to do something first.
fn moved(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    most: usize,
) -> Result<Option<usize>, Errno> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
