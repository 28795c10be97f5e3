//! Sockets between host and guest. Who connects to the machine's local socket names a port of the guest's
//! (`CONNECT <port>\n`) and is told `OK <own port>\n` once somebody there has accepted; then bytes pass, each
//! side sending no more than the other has room for. The guest cannot call the host.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};

use super::device::{Active, ConfigSpace, Device, Source};
use super::ring::Chain;
use crate::memory::Ram;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// The host's address.
const HOST: u64 = 2;
/// The length of a packet's header.
const HEADER: usize = 44;
const STREAM: u16 = 1;
/// What one connection holds for its socket at most, and says so.
const ROOM: u32 = 64 << 10;
/// The most connections, and answers that wait for the guest's buffers.
const MOST: usize = 256;
/// `CONNECT 4294967295\n`.
const LONGEST_GREETING: usize = 20;
/// Ports of the host's side begin here.
const FIRST_PORT: u32 = 1 << 30;

mod operation {
    pub(super) const REQUEST: u16 = 1;
    pub(super) const RESPONSE: u16 = 2;
    pub(super) const RESET: u16 = 3;
    pub(super) const SHUTDOWN: u16 = 4;
    pub(super) const DATA: u16 = 5;
    pub(super) const CREDIT: u16 = 6;
    pub(super) const CREDIT_REQUEST: u16 = 7;
}

/// A packet's header, without addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Packet {
    host_port: u32,
    guest_port: u32,
    length: u32,
    operation: u16,
    flags: u32,
    room: u32,
    forwarded: u32,
}

impl Packet {
    /// A packet of the guest's; `None` if it is not from this guest to the host, or no stream's.
    fn read(bytes: &[u8; HEADER], guest: u64) -> Option<Packet> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let packet = Packet {
            guest_port: word(16),
            host_port: word(20),
            length: word(24),
            operation: half(30),
            flags: word(32),
            room: word(36),
            forwarded: word(40),
        };
        (long(0) == guest && long(8) == HOST && half(28) == STREAM).then_some(packet)
    }

    /// A packet to the guest.
    fn write(&self, guest: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &HOST.to_le_bytes());
        put(8, &guest.to_le_bytes());
        put(16, &self.host_port.to_le_bytes());
        put(20, &self.guest_port.to_le_bytes());
        put(24, &self.length.to_le_bytes());
        put(28, &STREAM.to_le_bytes());
        put(30, &self.operation.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.room.to_le_bytes());
        put(40, &self.forwarded.to_le_bytes());
        bytes
    }
}

#[derive(Debug)]
enum State {
    /// The host's side says which port it wants.
    Greeting(Vec<u8>),
    /// The guest was asked.
    Requested,
    /// Bytes pass.
    Open,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    state: State,
    host_port: u32,
    guest_port: u32,
    /// The guest's room, and how much of what it was sent it has used up.
    peer_room: u32,
    peer_forwarded: u32,
    sent: u32,
    /// Bytes of the guest's that the socket did not take yet.
    waiting: VecDeque<u8>,
    forwarded: u32,
    told: u32,
    /// The socket may have something, as far as is known.
    readable: bool,
    /// The host's side sends no more.
    finished: bool,
    /// The guest sends no more; the socket is told when it has all.
    guest_finished: bool,
}

impl Connection {
    fn credit(&self) -> usize {
        self.peer_room.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded)) as usize
    }

    fn packet(&self, operation: u16) -> Packet {
        Packet {
            host_port: self.host_port,
            guest_port: self.guest_port,
            operation,
            room: ROOM,
            forwarded: self.forwarded,
            ..Packet::default()
        }
    }

    /// Gives the socket what waits for it; false if it is broken.
    fn forward(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.socket, self.waiting.as_slices().0) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        if self.guest_finished {
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        true
    }
}

/// The socket device.
pub(crate) struct Vsock {
    cid: u64,
    listener: OwnedFd,
    connections: Vec<Option<Connection>>,
    answers: VecDeque<Packet>,
    next_port: u32,
    config: ConfigSpace,
}

impl Vsock {
    pub(crate) fn new(cid: u32, listener: OwnedFd) -> io::Result<Vsock> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let config = ConfigSpace::new(u64::from(cid).to_le_bytes().to_vec(), 0..0);
        let (connections, answers) = (Vec::new(), VecDeque::new());
        Ok(Vsock { cid: u64::from(cid), listener, connections, answers, next_port: FIRST_PORT, config })
    }

    fn accept(&mut self, active: &mut Active) {
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let free = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
            if free >= MOST {
                continue;
            }
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if active.poll.add(&socket, Source::Device(free as u16 + 1), flags).is_err() {
                continue;
            }
            let connection = Connection {
                socket,
                state: State::Greeting(Vec::new()),
                host_port: self.next_port,
                guest_port: 0,
                peer_room: 0,
                peer_forwarded: 0,
                sent: 0,
                waiting: VecDeque::new(),
                forwarded: 0,
                told: 0,
                readable: true,
                finished: false,
                guest_finished: false,
            };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            match self.connections.get_mut(free) {
                Some(place) => *place = Some(connection),
                None => self.connections.push(Some(connection)),
            }
            self.greet(active, free);
        }
    }

    /// Reads on until the line is whole, byte by byte: what follows it belongs to the guest.
    fn greet(&mut self, active: &mut Active, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let State::Greeting(line) = &mut connection.state else { return };
        let mut byte = [0];
        loop {
            match rustix::io::read(&connection.socket, &mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() < LONGEST_GREETING => line.push(byte[0]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => return self.close(active, index),
            }
        }
        let port =
            std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("CONNECT ")?.parse().ok());
        let Some(port) = port else { return self.close(active, index) };
        connection.guest_port = port;
        connection.state = State::Requested;
        let request = connection.packet(operation::REQUEST);
        self.answer(request);
    }

    fn close(&mut self, active: &mut Active, index: usize) {
        if let Some(connection) = self.connections[index].take() {
            active.poll.remove(&connection.socket);
        }
    }

    /// Ends a connection that the guest knows of.
    fn reset_connection(&mut self, active: &mut Active, index: usize) {
        if let Some(connection) = &self.connections[index] {
            let packet = connection.packet(operation::RESET);
            self.answer(packet);
        }
        self.close(active, index);
    }

    fn answer(&mut self, packet: Packet) {
        // A guest that asks on without ever making room for answers gets no more of them.
        if self.answers.len() < 2 * MOST {
            self.answers.push_back(packet);
        }
    }

    /// A packet of the guest's, with its data still in the chain.
    fn receive(&mut self, active: &mut Active, packet: Packet, data: &[u8]) {
        let known = |c: &Connection| c.host_port == packet.host_port && c.guest_port == packet.guest_port;
        let found = self.connections.iter().position(|c| c.as_ref().is_some_and(known));
        let Some((index, connection)) =
            found.and_then(|index| Some((index, self.connections[index].as_mut()?)))
        else {
            if packet.operation != operation::RESET {
                let Packet { host_port, guest_port, .. } = packet;
                self.answer(Packet {
                    host_port,
                    guest_port,
                    operation: operation::RESET,
                    ..Packet::default()
                });
            }
            return;
        };
        (connection.peer_room, connection.peer_forwarded) = (packet.room, packet.forwarded);
        match (packet.operation, &connection.state) {
            (operation::RESPONSE, State::Requested) => {
                connection.state = State::Open;
                let told = format!("OK {}\n", connection.host_port);
                if rustix::io::write(&connection.socket, told.as_bytes()) != Ok(told.len()) {
                    self.reset_connection(active, index);
                }
            }
            (operation::DATA, State::Open) if !connection.guest_finished => {
                connection.waiting.extend(data);
                let within = connection.waiting.len() <= ROOM as usize;
                if !within || !connection.forward() {
                    return self.reset_connection(active, index);
                }
                self.tell_room(index);
            }
            (operation::CREDIT, State::Open) => {}
            (operation::CREDIT_REQUEST, State::Open) => {
                let packet = connection.packet(operation::CREDIT);
                self.answer(packet);
            }
            (operation::SHUTDOWN, State::Open) if packet.flags & 1 == 0 => {
                connection.guest_finished |= packet.flags & 2 != 0;
                if !connection.forward() {
                    self.reset_connection(active, index);
                }
            }
            (operation::SHUTDOWN, State::Open) => {
                connection.forward();
                self.reset_connection(active, index);
            }
            (operation::RESET, _) => self.close(active, index),
            _ => self.reset_connection(active, index),
        }
    }

    /// Tells the guest of room that became free, once it is worth a packet.
    fn tell_room(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        if connection.forwarded.wrapping_sub(connection.told) >= ROOM / 4 {
            connection.told = connection.forwarded;
            let packet = connection.packet(operation::CREDIT);
            self.answer(packet);
        }
    }

    /// To the guest: answers first, then what sockets have, as far as it has buffers and room.
    fn pump(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        'buffers: while let Some(chain) = next(active, &ram) {
            if let Some(packet) = self.answers.pop_front() {
                let written = ram.scatter(&chain.writable, 0, &packet.write(self.cid));
                active.rings[RECEIVE].put(&ram, chain, written as u32);
                continue;
            }
            for index in 0..self.connections.len() {
                let Some(connection) = &mut self.connections[index] else { continue };
                let room = connection.credit().min(chain.writable_len().saturating_sub(HEADER));
                let open = matches!(connection.state, State::Open) && !connection.finished;
                if !open || !connection.readable || room == 0 {
                    continue;
                }
                match ram.fill(connection.socket.as_fd(), &chain.writable, HEADER, room, None) {
                    Ok(0) => {
                        connection.finished = true;
                        let packet = Packet { flags: 2, ..connection.packet(operation::SHUTDOWN) };
                        self.answer(packet);
                    }
                    Ok(count) => {
                        connection.sent = connection.sent.wrapping_add(count as u32);
                        connection.told = connection.forwarded;
                        let packet = Packet { length: count as u32, ..connection.packet(operation::DATA) };
                        ram.scatter(&chain.writable, 0, &packet.write(self.cid));
                        active.rings[RECEIVE].put(&ram, chain, (HEADER + count) as u32);
                        continue 'buffers;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        connection.readable = false;
                        continue;
                    }
                    Err(_) => self.reset_connection(active, index),
                }
                // There is an answer now, and a buffer for it.
                active.rings[RECEIVE].keep(chain);
                continue 'buffers;
            }
            active.rings[RECEIVE].keep(chain);
            break;
        }
        active.flush(RECEIVE);
    }

    fn transmitted(&mut self, active: &mut Active) {
        let mut packets = Vec::new();
        let guest = self.cid;
        active.serve(TRANSMIT, false, |ram, chain| {
            let mut header = [0; HEADER];
            if ram.gather(&chain.readable, 0, &mut header) == HEADER {
                packets.extend(
                    Packet::read(&header, guest)
                        .and_then(|packet| Some((packet, data(ram, chain, packet.length)?))),
                );
            }
            0
        });
        for (packet, data) in packets {
            self.receive(active, packet, &data);
        }
        self.pump(active);
    }
}

/// A buffer of the guest's, or a kick to come for the next one.
fn next(active: &mut Active, ram: &Ram) -> Option<Chain> {
    loop {
        if let Some(chain) = active.rings[RECEIVE].next(ram) {
            return Some(chain);
        }
        if !active.rings[RECEIVE].watch(ram) {
            return None;
        }
    }
}

/// A packet's data; `None` if there is less than it says, or more than anybody was allowed.
fn data(ram: &Ram, chain: &Chain, length: u32) -> Option<Vec<u8>> {
    if length > ROOM {
        return None;
    }
    let mut data = vec![0; length as usize];
    (ram.gather(&chain.readable, HEADER, &mut data) == data.len()).then_some(data)
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        19
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> Vec<u16> {
        vec![128, 128, 16]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn activate(&mut self, active: &mut Active) -> io::Result<()> {
        active.poll.add(&self.listener, Source::Device(0), EventFlags::IN)
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        match queue {
            RECEIVE => self.pump(active),
            TRANSMIT => self.transmitted(active),
            // There are no events to tell: machines do not move.
            _ => {}
        }
    }

    fn ready(&mut self, active: &mut Active, event: u16, _flags: EventFlags) {
        let Some(index) = usize::from(event).checked_sub(1) else {
            self.accept(active);
            return self.pump(active);
        };
        self.greet(active, index);
        if let Some(Some(connection)) = self.connections.get_mut(index) {
            connection.readable = true;
            if connection.forward() {
                self.tell_room(index);
            } else {
                self.reset_connection(active, index);
            }
        }
        self.pump(active);
    }

    fn reset(&mut self, active: &mut Active) {
        active.poll.remove(&self.listener);
        for connection in self.connections.drain(..).flatten() {
            active.poll.remove(&connection.socket);
        }
        self.answers.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::virtio::driver::{BUFFERS, Driver};

    const GUEST: u32 = 5;

    struct Sockets {
        device: Vsock,
        driver: Driver,
        host: UnixStream,
        _directory: tempfile::TempDir,
    }

    impl Sockets {
        /// The host's side has asked for port 80.
        fn new() -> Sockets {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            let mut device = Vsock::new(GUEST, listener.into()).unwrap();
            let mut driver = Driver::new(&device);
            device.activate(&mut driver.active).unwrap();
            let mut host = UnixStream::connect(&path).unwrap();
            host.set_nonblocking(true).unwrap();
            host.write_all(b"CONNECT 80\nearly").unwrap();
            device.ready(&mut driver.active, 0, EventFlags::IN);
            Sockets { device, driver, host, _directory: directory }
        }

        /// The next packet that the guest sees, and its data.
        fn next(&mut self) -> Option<(Packet, Vec<u8>)> {
            self.driver.offer(RECEIVE, &[(BUFFERS + 0x1000, 4096, true)]);
            self.device.kicked(&mut self.driver.active, RECEIVE);
            let length = *self.driver.used(RECEIVE).first()? as usize;
            let bytes = self.driver.bytes(BUFFERS + 0x1000, length);
            // Seen from the other side, addresses and ports are swapped.
            let mut header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
            assert_eq!(header[8], GUEST as u8);
            header.copy_within(8..16, 0);
            header[8..16].copy_from_slice(&HOST.to_le_bytes());
            let packet = Packet::read(&header, u64::from(GUEST)).unwrap();
            let swapped = Packet { host_port: packet.guest_port, guest_port: packet.host_port, ..packet };
            Some((swapped, bytes[HEADER..].to_vec()))
        }

        fn send(&mut self, operation: u16, flags: u32, data: &[u8]) {
            let packet = Packet {
                host_port: FIRST_PORT,
                guest_port: 80,
                length: data.len() as u32,
                operation,
                flags,
                room: 8,
                forwarded: 0,
            };
            let mut bytes = packet.write(u64::from(GUEST));
            bytes.copy_within(8..16, 0);
            bytes[8..16].copy_from_slice(&HOST.to_le_bytes());
            bytes[16..20].copy_from_slice(&80_u32.to_le_bytes());
            bytes[20..24].copy_from_slice(&FIRST_PORT.to_le_bytes());
            assert!(self.driver.ram.write(BUFFERS, &[&bytes, data].concat()));
            self.driver.offer(TRANSMIT, &[(BUFFERS, (HEADER + data.len()) as u32, false)]);
            self.device.kicked(&mut self.driver.active, TRANSMIT);
        }

        fn host_reads(&mut self) -> Vec<u8> {
            let mut bytes = [0; 100];
            self.host.read(&mut bytes).map_or(Vec::new(), |count| bytes[..count].to_vec())
        }
    }

    #[test]
    fn bytes_pass_both_ways_within_the_guests_room() {
        let mut sockets = Sockets::new();
        let (request, _) = sockets.next().unwrap();
        assert_eq!((request.operation, request.guest_port), (operation::REQUEST, 80));
        assert!(sockets.host_reads().is_empty());
        sockets.send(operation::RESPONSE, 0, b"");
        assert_eq!(sockets.host_reads(), format!("OK {FIRST_PORT}\n").as_bytes());
        sockets.host.write_all(b"-and-more").unwrap();
        sockets.device.ready(&mut sockets.driver.active, 1, EventFlags::IN);
        // The guest has room for eight bytes.
        let (packet, bytes) = sockets.next().unwrap();
        assert_eq!((packet.operation, bytes.as_slice()), (operation::DATA, &b"early-an"[..]));
        assert_eq!(sockets.next(), None);
        sockets.send(operation::DATA, 0, b"answer");
        assert_eq!(sockets.host_reads(), b"answer");
    }

    #[test]
    fn guest_that_refuses_or_calls_itself_ends_the_connection() {
        let mut sockets = Sockets::new();
        sockets.next().unwrap();
        sockets.send(operation::RESET, 0, b"");
        // What it sent was never read: that is what a reset is.
        let end = sockets.host.read(&mut [0; 10]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        sockets.send(operation::REQUEST, 0, b"");
        assert_eq!(sockets.next().unwrap().0.operation, operation::RESET);
    }

    #[test]
    fn end_of_either_side_is_told_to_the_other() {
        let mut sockets = Sockets::new();
        sockets.next().unwrap();
        sockets.send(operation::RESPONSE, 0, b"");
        sockets.host_reads();
        sockets.send(operation::SHUTDOWN, 2, b"");
        assert_eq!(sockets.host.read(&mut [0; 10]).unwrap(), 0);
        assert_eq!(sockets.next().unwrap().1, b"early");
        sockets.host.shutdown(std::net::Shutdown::Write).unwrap();
        sockets.device.ready(&mut sockets.driver.active, 1, EventFlags::IN);
        let packet = sockets.next().unwrap().0;
        assert_eq!((packet.operation, packet.flags), (operation::SHUTDOWN, 2));
    }

    #[test]
    fn guest_that_sends_beyond_its_room_is_cut_off() {
        let mut sockets = Sockets::new();
        sockets.next().unwrap();
        sockets.send(operation::RESPONSE, 0, b"");
        let mut rounds = 0;
        // The host reads nothing: the socket fills, then what may wait for it.
        while sockets.device.connections[0].is_some() && rounds < 100 {
            sockets.send(operation::DATA, 0, &[7; 60_000]);
            rounds += 1;
        }
        assert!(rounds < 100);
    }
}
