//! Questions that were passed on in datagrams, until they are answered or out of time.
//!
//! Servers are asked in order, the next one whenever the last has failed or been silent for a while: their
//! order means something (a private server comes before a public one). Each question has a socket of its
//! own for each server, so that the kernel gives it a port by chance, lets only that server's datagrams in,
//! and says when nobody listens there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, Question};

/// Silence after which the next server is asked too.
const PATIENCE: Duration = Duration::from_millis(400);
/// All in all; clients ask again after five seconds.
const DEADLINE: Duration = Duration::from_millis(4500);
/// For a bare name, which is most likely a container that is not there.
const DEADLINE_BARE: Duration = Duration::from_millis(1500);

/// A question on its way.
#[derive(Debug)]
pub(super) struct Pending {
    /// Who asked.
    pub(super) client: SocketAddr,
    /// What, with the client's own id.
    pub(super) query: Vec<u8>,
    section: Vec<u8>,
    id: u16,
    asked: usize,
    sockets: Vec<UdpSocket>,
    patience: Instant,
    deadline: Instant,
    /// A server's refusal, passed on should nobody do better.
    refusal: Option<Vec<u8>>,
}

/// How a question stands.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Wait.
    Open,
    /// Send this to the client.
    Reply(Vec<u8>),
}

impl Pending {
    pub(super) fn new(client: SocketAddr, query: &[u8], question: &Question, id: u16, now: Instant) -> Self {
        let deadline = if question.is_single_label() { DEADLINE_BARE } else { DEADLINE };
        Self {
            client,
            query: query.to_vec(),
            section: question.section(query).to_vec(),
            id,
            asked: 0,
            sockets: Vec::new(),
            patience: now,
            deadline: now + deadline,
            refusal: None,
        }
    }

    /// Whether this is the same question of the same client, asked again.
    pub(super) fn is(&self, client: SocketAddr, query: &[u8]) -> bool {
        self.client == client && self.query == query
    }

    /// When [`Pending::advance`] has something to do.
    pub(super) fn due(&self, servers: usize) -> Instant {
        if self.asked < servers { self.patience.min(self.deadline) } else { self.deadline }
    }

    /// Reads what arrived, asks the next server when it is time. `watch` is told of a new socket.
    pub(super) fn advance(
        &mut self,
        servers: &[SocketAddr],
        now: Instant,
        buffer: &mut [u8],
        mut watch: impl FnMut(&UdpSocket) -> io::Result<()>,
    ) -> Outcome {
        if let Some(reply) = self.read(buffer) {
            return Outcome::Reply(reply);
        }
        while self.asked < servers.len() && (self.sockets.is_empty() || now >= self.patience) {
            let server = servers[self.asked];
            self.asked += 1;
            self.patience = now + PATIENCE;
            if let Ok(socket) = self.ask(server).and_then(|socket| watch(&socket).map(|()| socket)) {
                self.sockets.push(socket);
            }
        }
        let hopeless = self.sockets.is_empty() && self.asked >= servers.len();
        if hopeless || now >= self.deadline {
            let refusal = self.refusal.take();
            return Outcome::Reply(refusal.unwrap_or_else(|| super::answer::unanswered(&self.query)));
        }
        Outcome::Open
    }

    fn ask(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(server)?;
        let mut query = self.query.clone();
        message::set_id(&mut query, self.id);
        socket.send(&query)?;
        Ok(socket)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<Vec<u8>> {
        let mut reply = None;
        let (id, section, refusal) = (self.id, &self.section, &mut self.refusal);
        self.sockets.retain(|socket| {
            // A few datagrams at most: whoever floods a port does not keep us here.
            for _ in 0..4 {
                match socket.recv(buffer) {
                    Ok(length) => {
                        let Some(datagram) = buffer.get(..length) else { return true };
                        if !message::is_reply_to(datagram, id, section) {
                            continue;
                        }
                        if message::is_failure(datagram) {
                            *refusal = Some(datagram.to_vec());
                        } else {
                            reply = Some(datagram.to_vec());
                        }
                        return false;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Nobody listens there.
                    Err(_) => return false,
                }
            }
            true
        });
        let client_id = message::id(&self.query).unwrap_or(0);
        for message in reply.iter_mut().chain(&mut self.refusal) {
            message::set_id(message, client_id);
        }
        reply
    }
}
