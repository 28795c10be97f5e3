//! Datagrams of one published port: each client has a socket of its own to the container, by which answers find
//! their way back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// A client that says nothing for so long, and is told nothing, is forgotten.
const IDLE: Duration = Duration::from_secs(120);
/// Clients at most: the one that has been silent for longest gives way.
const CLIENTS_MAX: usize = 256;
/// Datagrams taken in one go.
const TURN: usize = 64;
/// The largest there is.
const DATAGRAM: usize = 65536;

/// One port.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    target: SocketAddr,
    clients: Vec<Client>,
    next: u16,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    id: u16,
    address: SocketAddr,
    socket: UdpSocket,
    last: Instant,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket, target: SocketAddr) -> Self {
        Self { socket, target, clients: Vec::new(), next: 0, buffer: vec![0; DATAGRAM] }
    }

    /// Sends new clients' datagrams elsewhere; those that are known begin anew.
    pub(super) fn retarget(&mut self, target: SocketAddr) {
        if self.target != target {
            self.target = target;
            self.clients.clear();
        }
    }

    /// Passes on what clients have sent; `true`: there may be more. `watch` is told of a new client's socket.
    pub(super) fn take(
        &mut self,
        now: Instant,
        mut watch: impl FnMut(&UdpSocket, u16) -> Result<(), Errno>,
    ) -> bool {
        for _ in 0..TURN {
            let (length, address) = match self.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An earlier answer found its client gone.
                Err(_) => continue,
            };
            let at = match self.clients.iter().position(|client| client.address == address) {
                Some(at) => at,
                None => match self.meet(address, now, &mut watch) {
                    Ok(at) => at,
                    // Descriptors are short: datagrams may be lost.
                    Err(_) => continue,
                },
            };
            self.clients[at].last = now;
            // As above: who listens there may not be there yet.
            let _ = self.clients[at].socket.send(&self.buffer[..length]);
        }
        true
    }

    fn meet(
        &mut self,
        address: SocketAddr,
        now: Instant,
        watch: &mut impl FnMut(&UdpSocket, u16) -> Result<(), Errno>,
    ) -> io::Result<usize> {
        if self.clients.len() >= CLIENTS_MAX
            && let Some(oldest) = (0..self.clients.len()).min_by_key(|at| self.clients[*at].last)
        {
            self.clients.swap_remove(oldest);
        }
        let any: SocketAddr = match self.target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(self.target)?;
        while self.clients.iter().any(|client| client.id == self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        watch(&socket, id)?;
        self.clients.push(Client { id, address, socket, last: now });
        Ok(self.clients.len() - 1)
    }

    /// Passes on what the container answers one client; `true`: there may be more.
    pub(super) fn answer(&mut self, id: u16, now: Instant) -> bool {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return false };
        for _ in 0..TURN {
            match client.socket.recv(&mut self.buffer) {
                Ok(length) => {
                    client.last = now;
                    let _ = self.socket.send_to(&self.buffer[..length], client.address);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // Nobody listens there now.
                Err(_) => {}
            }
        }
        true
    }

    /// When somebody is to be forgotten.
    pub(super) fn due(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.last + IDLE).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.clients.retain(|client| client.last + IDLE > now);
    }
}
