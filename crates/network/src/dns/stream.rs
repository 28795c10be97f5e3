//! A client that asks over TCP, and the connection over which its questions are passed on.
//!
//! One question at a time; a length of two bytes goes before each message (RFC 7766).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::DnsPlan;
use super::answer::{Answer, Transport, answer, unanswered};
use super::message::Question;
use super::zone::look_up;

/// A client that says nothing for so long is left.
const IDLE: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is given up for the next.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    phase: Phase,
    deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    /// A question is being read.
    Reading(Vec<u8>),
    /// It has been passed on.
    Asking { query: Vec<u8>, asked: usize, exchange: Exchange },
    /// Its reply is being written.
    Writing(Vec<u8>, usize),
}

#[derive(Debug)]
struct Exchange {
    stream: TcpStream,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

/// What an attempt to move bytes came to.
enum Moved {
    /// All of them.
    All,
    /// The other side has to do something first.
    Blocked,
    /// The connection is over.
    Over,
}

impl Client {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
        Self { stream, phase: Phase::Reading(Vec::new()), deadline: now + IDLE }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// When [`Client::advance`] has something to do at the latest.
    pub(super) fn due(&self) -> Instant {
        self.deadline
    }

    /// Goes as far as possible without waiting; `false`: the client is done with. `watch` is told of a new
    /// connection to a server.
    pub(super) fn advance(
        &mut self,
        plan: &DnsPlan,
        now: Instant,
        mut watch: impl FnMut(&TcpStream) -> io::Result<()>,
    ) -> bool {
        loop {
            match &mut self.phase {
                Phase::Reading(buffer) => match read_message(&mut self.stream, buffer) {
                    Moved::All => {
                        let query = buffer.split_off(2);
                        let zone = Question::parse(&query).map(|question| look_up(plan, &question.subject));
                        match answer(&query, &zone.unwrap_or_default(), Transport::Stream) {
                            Answer::Reply(reply) => self.phase = Phase::Writing(prefixed(&reply), 0),
                            Answer::Ignore => return false,
                            Answer::Forward => self.ask(query, 0, plan, now, &mut watch),
                        }
                    }
                    Moved::Blocked => return now < self.deadline,
                    Moved::Over => return false,
                },
                Phase::Asking { query, asked, exchange } => match exchange.advance() {
                    Moved::All => {
                        self.phase = Phase::Writing(std::mem::take(&mut exchange.received), 0);
                    }
                    Moved::Blocked if now < self.deadline => return true,
                    Moved::Blocked | Moved::Over => {
                        let (query, asked) = (std::mem::take(query), *asked);
                        self.ask(query, asked, plan, now, &mut watch);
                    }
                },
                Phase::Writing(bytes, written) => match write_all(&mut self.stream, bytes, written) {
                    Moved::All => {
                        self.phase = Phase::Reading(Vec::new());
                        self.deadline = now + IDLE;
                    }
                    Moved::Blocked => return now < self.deadline,
                    Moved::Over => return false,
                },
            }
        }
    }

    /// Passes the question on to the first server from number `from` on that can be connected to.
    fn ask(
        &mut self,
        query: Vec<u8>,
        from: usize,
        plan: &DnsPlan,
        now: Instant,
        watch: &mut impl FnMut(&TcpStream) -> io::Result<()>,
    ) {
        for (number, server) in plan.upstream.iter().enumerate().skip(from) {
            let connected = connect(*server).and_then(|stream| watch(&stream).map(|()| stream));
            if let Ok(stream) = connected {
                let exchange = Exchange { stream, to_send: prefixed(&query), sent: 0, received: Vec::new() };
                self.phase = Phase::Asking { query, asked: number + 1, exchange };
                self.deadline = now + PATIENCE;
                return;
            }
        }
        self.phase = Phase::Writing(prefixed(&unanswered(&query)), 0);
        self.deadline = now + IDLE;
    }
}

impl Exchange {
    fn advance(&mut self) -> Moved {
        if self.sent < self.to_send.len() {
            match write_all(&mut self.stream, &self.to_send, &mut self.sent) {
                Moved::All => {}
                unfinished => return unfinished,
            }
        }
        read_message(&mut self.stream, &mut self.received)
    }
}

/// Reads until `buffer` holds a length and as many bytes.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Moved {
    loop {
        let wanted = match buffer.as_slice() {
            [high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 2,
        };
        if buffer.len() == wanted && wanted > 2 {
            return Moved::All;
        }
        if wanted == 2 && buffer.len() == 2 {
            // An empty message.
            return Moved::Over;
        }
        let mut chunk = [0; 512];
        let most = (wanted - buffer.len()).min(chunk.len());
        match stream.read(&mut chunk[..most]) {
            Ok(0) => return Moved::Over,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Moved::Blocked,
                io::ErrorKind::Interrupted => {}
                _ => return Moved::Over,
            },
        }
    }
}

fn write_all(stream: &mut TcpStream, bytes: &[u8], written: &mut usize) -> Moved {
    while *written < bytes.len() {
        match stream.write(&bytes[*written..]) {
            Ok(0) => return Moved::Over,
            Ok(length) => *written += length,
            Err(error) => match error.kind() {
                // Not connected yet, or the other side reads slowly.
                io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => return Moved::Blocked,
                io::ErrorKind::Interrupted => {}
                _ => return Moved::Over,
            },
        }
    }
    Moved::All
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message[..usize::from(length)]);
    bytes
}

/// Begins to connect, without waiting for it.
fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno.into()),
    }
}
