//! 127.0.0.11:53 in the guest: questions go to the host, answers come back. Nothing of them is understood here.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use cata_guest::protocol::{Frame, Kind};

use crate::boot::{BootError, failed};

/// As images hard-code it.
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Most questions under way.
const MOST: usize = 256;
/// Most connections.
const MOST_CONNECTIONS: usize = 32;
/// Who asks gives up sooner.
const PATIENCE: Duration = Duration::from_secs(20);

enum Asker {
    Datagram(SocketAddr),
    Connection(u64),
}

struct Connection {
    number: u64,
    stream: TcpStream,
    bytes: Vec<u8>,
    since: Instant,
}

/// See the module.
pub(crate) struct Names {
    datagrams: UdpSocket,
    listener: TcpListener,
    connections: Vec<Connection>,
    asked: HashMap<u32, (Asker, Instant)>,
    next: u32,
    next_connection: u64,
}

impl Names {
    pub(crate) fn listen() -> Result<Self, BootError> {
        let datagrams = UdpSocket::bind(SERVER).map_err(failed("listen for names"))?;
        let listener = TcpListener::bind(SERVER).map_err(failed("listen for names"))?;
        datagrams.set_nonblocking(true).map_err(failed("listen for names"))?;
        listener.set_nonblocking(true).map_err(failed("listen for names"))?;
        Ok(Self {
            datagrams,
            listener,
            connections: Vec::new(),
            asked: HashMap::new(),
            next: 0,
            next_connection: 0,
        })
    }

    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.datagrams.as_fd(), self.listener.as_fd()]
            .into_iter()
            .chain(self.connections.iter().map(|connection| connection.stream.as_fd()))
    }

    /// Questions that have come.
    pub(crate) fn ready(&mut self) -> Vec<Frame> {
        self.asked.retain(|_, (_, since)| since.elapsed() < PATIENCE);
        self.connections.retain(|connection| connection.since.elapsed() < PATIENCE);
        let mut frames = Vec::new();
        let mut message = [0_u8; 4096];
        while self.asked.len() < MOST
            && let Ok((length, from)) = self.datagrams.recv_from(&mut message)
        {
            frames.push(self.ask(Asker::Datagram(from), false, &message[..length]));
        }
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() < MOST_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                let number = self.next_connection;
                self.next_connection += 1;
                let since = Instant::now();
                self.connections.push(Connection { number, stream, bytes: Vec::new(), since });
            }
        }
        let mut questions = Vec::new();
        self.connections.retain_mut(|connection| {
            let open = connection.read();
            while let Some(question) = connection.question() {
                questions.push((connection.number, question));
            }
            open
        });
        for (number, question) in questions {
            if self.asked.len() < MOST {
                frames.push(self.ask(Asker::Connection(number), true, &question));
            }
        }
        frames
    }

    fn ask(&mut self, asker: Asker, stream: bool, question: &[u8]) -> Frame {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.asked.insert(number, (asker, Instant::now()));
        let mut payload = vec![u8::from(stream)];
        payload.extend_from_slice(question);
        payload.truncate(Kind::Query.longest());
        Frame::new(Kind::Query, number, payload)
    }

    /// The host knows.
    pub(crate) fn answer(&mut self, frame: &Frame) {
        let Some((asker, _)) = self.asked.remove(&frame.session) else { return };
        if frame.payload.is_empty() {
            return;
        }
        match asker {
            // Who has gone does not miss it.
            Asker::Datagram(to) => drop(self.datagrams.send_to(&frame.payload, to)),
            Asker::Connection(number) => {
                let Ok(length) = u16::try_from(frame.payload.len()) else { return };
                if let Some(at) = self.connections.iter().position(|c| c.number == number) {
                    let mut message = length.to_be_bytes().to_vec();
                    message.extend_from_slice(&frame.payload);
                    // An answer fits a socket's buffer; a connection that does not take it is closed.
                    let sent = self.connections[at].stream.write(&message);
                    if !sent.is_ok_and(|sent| sent == message.len()) {
                        self.connections.swap_remove(at);
                    }
                }
            }
        }
    }
}

impl Connection {
    /// `false`: it has ended.
    fn read(&mut self) -> bool {
        let mut piece = [0_u8; 4096];
        // Two questions at most wait here.
        while self.bytes.len() < 2 * 65536 {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => self.bytes.extend_from_slice(&piece[..length]),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn question(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let question = rest.get(..length)?.to_vec();
        self.bytes.drain(..2 + length);
        Some(question)
    }
}
