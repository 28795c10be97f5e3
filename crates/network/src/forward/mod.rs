//! Published ports without a firewall of ours: connections and datagrams are carried from sockets that listen in
//! the host's network to the container's address.
//!
//! Users without privileges have it, whose firewall is not the host's. It is served by the container's own
//! supervisor, which is in the user's network and got the listening sockets from whoever is in the host's: ports
//! live as long as the container, and nobody else has to be found. What the container sees is a connection from
//! its gateway.
//!
//! One thread, never waiting; descriptors are in an epoll instance of its own, edge-triggered.

mod stream;
mod udp;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use crate::request::Forward;
use crate::request::Transport;
use stream::{Pipes, Progress, Stream};
use udp::Datagrams;

/// Connections taken in one go: whoever owns us has other things to do.
const ACCEPT_MAX: usize = 64;
/// Descriptors that are the owner's.
const RESERVED: u64 = 128;
/// Descriptors of a connection: two, and a pipe while bytes wait in it.
const PER_CONNECTION: u64 = 6;

#[derive(Debug)]
enum Port {
    Streams(TcpListener, SocketAddr),
    Datagrams(Datagrams),
}

/// The published ports of one container.
#[derive(Debug)]
pub struct Forwarder {
    epoll: OwnedFd,
    ports: Vec<Port>,
    streams: BTreeMap<u32, Stream>,
    pipes: Pipes,
    next: u32,
    most: usize,
    /// Whom a limit stopped with work left, of which no edge will tell again.
    unfinished: VecDeque<Token>,
}

/// Whom an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Port(u32),
    Stream(u32),
    /// Of a port, the number of the client.
    Client(u16, u16),
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Port(number) => u64::from(number),
            Self::Stream(id) => 1 << 32 | u64::from(id),
            Self::Client(port, id) => 2 << 32 | u64::from(port) << 16 | u64::from(id),
        })
    }

    fn of(data: u64) -> Self {
        let low = u32::try_from(data & 0xffff_ffff).unwrap_or(0);
        match data >> 32 {
            0 => Self::Port(low),
            1 => Self::Stream(low),
            _ => {
                let half = |bits: u32| u16::try_from(bits & 0xffff).unwrap_or(0);
                Self::Client(half(low >> 16), half(low))
            }
        }
    }
}

impl Forwarder {
    /// Serves one socket for each [`Forward`]; connects from the calling thread's network.
    ///
    /// # Errors
    /// `EINVAL` unless there are as many sockets; what the kernel says.
    pub fn new(forwards: Vec<Forward>, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        if forwards.len() != sockets.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut ports = Vec::with_capacity(sockets.len());
        for ((number, forward), socket) in (0..).zip(forwards).zip(sockets) {
            epoll::add(&epoll, &socket, Token::Port(number).data(), EventFlags::IN | EventFlags::ET)?;
            ports.push(match forward.transport {
                Transport::Tcp => Port::Streams(TcpListener::from(socket), forward.target),
                Transport::Udp => Port::Datagrams(Datagrams::new(UdpSocket::from(socket), forward.target)),
            });
        }
        Ok(Self {
            epoll,
            ports,
            streams: BTreeMap::new(),
            pipes: Pipes::default(),
            next: 0,
            most: room(),
            unfinished: VecDeque::new(),
        })
    }

    /// Other targets for the same sockets, from the next connection and the next client on.
    ///
    /// # Errors
    /// `EINVAL` unless there are as many.
    pub fn retarget(&mut self, forwards: &[Forward]) -> io::Result<()> {
        if forwards.len() != self.ports.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (port, forward) in self.ports.iter_mut().zip(forwards) {
            match port {
                Port::Streams(_, target) => *target = forward.target,
                Port::Datagrams(datagrams) => datagrams.retarget(forward.target),
            }
        }
        Ok(())
    }

    /// Readable when [`Forwarder::ready`] has something to do.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// How long [`Forwarder::ready`] may stay uncalled; `None`: until [`Forwarder::fd`] is readable.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.ports.iter().filter_map(|port| match port {
            Port::Datagrams(datagrams) => datagrams.due(),
            Port::Streams(..) => None,
        });
        Some(due.min()?.saturating_duration_since(Instant::now()))
    }

    /// Does what can be done without waiting.
    pub fn ready(&mut self) {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = epoll::wait(&self.epoll, &mut events[..], Some(&none)).unwrap_or(0);
        let mut tokens: Vec<Token> = self.unfinished.drain(..).collect();
        for event in &events[..ready] {
            let token = Token::of(event.data.u64());
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        let now = Instant::now();
        for token in tokens {
            match token {
                Token::Port(number) => self.arrived(number, now),
                Token::Stream(id) => self.carry(id),
                Token::Client(port, id) => {
                    let Some(Port::Datagrams(datagrams)) = self.ports.get_mut(usize::from(port)) else {
                        continue;
                    };
                    if datagrams.answer(id, now) {
                        self.unfinished.push_back(token);
                    }
                }
            }
        }
        for port in &mut self.ports {
            if let Port::Datagrams(datagrams) = port {
                datagrams.expire(now);
            }
        }
    }

    /// A connection or a datagram came.
    fn arrived(&mut self, number: u32, now: Instant) {
        let Some(port) = self.ports.get_mut(number as usize) else { return };
        let (listener, target) = match port {
            Port::Streams(listener, target) => (listener, *target),
            Port::Datagrams(datagrams) => {
                let epoll = &self.epoll;
                let port = u16::try_from(number).unwrap_or(u16::MAX);
                let watch = |socket: &UdpSocket, id| {
                    epoll::add(epoll, socket, Token::Client(port, id).data(), EventFlags::IN | EventFlags::ET)
                };
                if datagrams.take(now, watch) {
                    self.unfinished.push_back(Token::Port(number));
                }
                return;
            }
        };
        let mut begun = Vec::new();
        for _ in 0..ACCEPT_MAX {
            // More wait to be accepted, until one is through.
            if self.streams.len() >= self.most {
                break;
            }
            match listener.accept() {
                Ok((client, _)) => {
                    let id = self.next;
                    self.next = self.next.wrapping_add(1);
                    // A target that cannot even be asked: the client is reset.
                    let Ok(stream) = Stream::new(client, target) else { continue };
                    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                    let watched = stream.sockets().into_iter().try_for_each(|socket| {
                        epoll::add(&self.epoll, socket, Token::Stream(id).data(), flags)
                    });
                    if watched.is_ok() {
                        self.streams.insert(id, stream);
                        begun.push(id);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A client that left, or descriptors are short: tried again when a connection ends.
                Err(_) => return,
            }
        }
        if begun.len() == ACCEPT_MAX {
            self.unfinished.push_back(Token::Port(number));
        }
    }

    fn carry(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.advance(&mut self.pipes) {
            Progress::Waits => {}
            Progress::More => self.unfinished.push_back(Token::Stream(id)),
            Progress::Over => {
                self.streams.remove(&id);
                // Who waited for room.
                let listening = (0..).zip(&self.ports).filter(|(_, port)| matches!(port, Port::Streams(..)));
                let waiting = listening.map(|(number, _)| Token::Port(number));
                for token in waiting.collect::<Vec<_>>() {
                    if !self.unfinished.contains(&token) && self.streams.len() + 1 >= self.most {
                        self.unfinished.push_back(token);
                    }
                }
            }
        }
    }
}

/// How many connections there can be at once, with as many descriptors as this process may have.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let room = current.unwrap_or(u64::MAX).saturating_sub(RESERVED) / PER_CONNECTION;
    usize::try_from(room.clamp(8, 16384)).unwrap_or(8)
}

#[cfg(test)]
mod tests;
