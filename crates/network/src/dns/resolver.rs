//! The service: sockets, and what waits for them. One thread, never waiting.
//!
//! All descriptors are in an epoll instance of its own, edge-triggered: readiness only says that someone
//! has to be looked at again, and everybody is, because there are few.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::DnsPlan;
use super::answer::{Answer, Transport, answer};
use super::message::Question;
use super::stream::Client;
use super::upstream::{Outcome, Pending};
use super::zone::look_up;

/// Questions on their way at most; more are not answered, and asked again by the client.
const PENDING_MAX: usize = 128;
/// Clients over TCP at most; more wait to be accepted.
const CLIENTS_MAX: usize = 32;
/// Datagrams taken in one go: whoever owns us has other things to do.
const DATAGRAMS_MAX: usize = 64;
/// The largest datagram that is passed on whole.
const DATAGRAM: usize = 4096;

/// The name service of one container.
#[derive(Debug)]
pub struct Resolver {
    plan: DnsPlan,
    epoll: OwnedFd,
    datagrams: UdpSocket,
    listener: TcpListener,
    pending: Vec<Pending>,
    clients: Vec<Client>,
    /// Whether a limit stopped us with work left, of which no edge will tell again.
    unfinished: bool,
    buffer: Vec<u8>,
}

impl Resolver {
    /// Serves on the sockets that were made inside the container's namespace: UDP, then TCP. Asks others
    /// from the calling thread's.
    ///
    /// # Errors
    /// `EINVAL` unless there are two sockets; what the kernel says.
    pub fn new(plan: DnsPlan, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let [udp, tcp]: [OwnedFd; 2] =
            sockets.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (datagrams, listener) = (UdpSocket::from(udp), TcpListener::from(tcp));
        datagrams.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        // Not for writing: every datagram sent would wake us again.
        for own in [datagrams.as_fd(), listener.as_fd()] {
            epoll::add(&epoll, own, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        }
        Ok(Self {
            plan,
            epoll,
            datagrams,
            listener,
            pending: Vec::new(),
            clients: Vec::new(),
            unfinished: false,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Answers by another plan from the next question on.
    pub fn replan(&mut self, plan: DnsPlan) {
        self.plan = plan;
    }

    /// Readable when [`Resolver::ready`] has something to do.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// How long [`Resolver::ready`] may stay uncalled; `None`: until [`Resolver::fd`] is readable.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        if self.unfinished {
            return Some(Duration::ZERO);
        }
        let servers = self.plan.upstream.len();
        let pending = self.pending.iter().map(|one| one.due(servers));
        let next = pending.chain(self.clients.iter().map(Client::due)).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Does what can be done without waiting.
    pub fn ready(&mut self) {
        // Consumes the edges; who they were about does not matter.
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        let _ = epoll::wait(&self.epoll, &mut events[..], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let now = Instant::now();
        self.unfinished = false;
        self.take_datagrams(now);
        self.advance_pending(now);
        let (plan, epoll) = (&self.plan, &self.epoll);
        self.clients.retain_mut(|client| client.advance(plan, now, |stream| watch(epoll, stream)));
        // Their first edge comes with being watched.
        self.accept(now);
    }

    fn take_datagrams(&mut self, now: Instant) {
        for _ in 0..DATAGRAMS_MAX {
            let (length, client) = match self.datagrams.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An earlier reply found its client gone.
                Err(_) => continue,
            };
            let query = &self.buffer[..length];
            let question = Question::parse(query);
            let zone = question.as_ref().map(|question| look_up(&self.plan, &question.subject));
            match (answer(query, &zone.unwrap_or_default(), Transport::Datagram), question) {
                (Answer::Reply(reply), _) => {
                    // A client that is gone, or whose buffer is full, asks again.
                    let _ = self.datagrams.send_to(&reply, client);
                }
                (Answer::Forward, Ok(question)) => {
                    let known = self.pending.iter().any(|one| one.is(client, query));
                    if !known && self.pending.len() < PENDING_MAX {
                        self.pending.push(Pending::new(client, query, &question, random_id(), now));
                    }
                }
                (Answer::Ignore | Answer::Forward, _) => {}
            }
        }
        self.unfinished = true;
    }

    fn advance_pending(&mut self, now: Instant) {
        let (servers, epoll, datagrams) = (&self.plan.upstream, &self.epoll, &self.datagrams);
        let buffer = &mut self.buffer;
        self.pending.retain_mut(|one| {
            match one.advance(servers, now, buffer, |socket| watch(epoll, socket)) {
                Outcome::Open => true,
                Outcome::Reply(reply) => {
                    let _ = datagrams.send_to(&reply, one.client);
                    false
                }
            }
        });
    }

    fn accept(&mut self, now: Instant) {
        while self.clients.len() < CLIENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let client = Client::new(stream, now);
                    let watched = client
                        .stream()
                        .set_nonblocking(true)
                        .and_then(|()| watch(&self.epoll, client.stream()));
                    if watched.is_ok() {
                        self.clients.push(client);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody waits, or descriptors are short: then the next call tries again.
                Err(_) => return,
            }
        }
    }
}

fn watch(epoll: &OwnedFd, what: &impl AsFd) -> io::Result<()> {
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    epoll::add(epoll, what, EventData::new_u64(0), flags)?;
    Ok(())
}

/// An id that others cannot guess.
fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // Two bytes are always given; the port is chosen by chance as well.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}
