//! The guest's questions about names, asked of the name service in this process' own network namespace.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use cata_guest::protocol::{Frame, Kind};

use crate::Refusal;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Most questions under way; a guest that asks more has no answers.
const MOST: usize = 256;
const MOST_STREAMS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose question a number of ours stands for.
struct Asked {
    question: u32,
    original: [u8; 2],
    since: Instant,
}

struct Call {
    question: u32,
    stream: TcpStream,
    answer: Vec<u8>,
    since: Instant,
}

/// See the module.
pub(crate) struct Names {
    socket: UdpSocket,
    asked: HashMap<u16, Asked>,
    next: u16,
    calls: Vec<Call>,
}

impl Names {
    pub(crate) fn new() -> Result<Self, Refusal> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Refusal::at("ask for names"))?;
        socket.connect(SERVER).map_err(Refusal::at("reach the name service"))?;
        socket.set_nonblocking(true).map_err(Refusal::at("ask for names"))?;
        Ok(Self { socket, asked: HashMap::new(), next: 0, calls: Vec::new() })
    }

    pub(crate) fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.calls.iter().map(|call| call.stream.as_fd()))
    }

    /// A question of the guest's: anything at all.
    pub(crate) fn ask(&mut self, frame: &Frame) -> Option<Frame> {
        let nothing = Some(Frame::new(Kind::Answer, frame.session, Vec::new()));
        let Some((stream, message)) = frame.payload.split_first() else { return nothing };
        let asked = if *stream == 0 {
            self.datagram(frame.session, message)
        } else {
            self.call(frame.session, message)
        };
        if asked.is_some() { None } else { nothing }
    }

    fn datagram(&mut self, question: u32, message: &[u8]) -> Option<()> {
        self.asked.retain(|_, asked| asked.since.elapsed() < PATIENCE);
        let ([a, b], rest) = message.split_first_chunk::<2>()?;
        if self.asked.len() >= MOST {
            return None;
        }
        while self.asked.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let mut ours = number.to_be_bytes().to_vec();
        ours.extend_from_slice(rest);
        self.socket.send(&ours).ok()?;
        self.asked.insert(number, Asked { question, original: [*a, *b], since: Instant::now() });
        Some(())
    }

    fn call(&mut self, question: u32, message: &[u8]) -> Option<()> {
        self.calls.retain(|call| call.since.elapsed() < PATIENCE);
        if self.calls.len() >= MOST_STREAMS {
            return None;
        }
        let length = u16::try_from(message.len()).ok()?;
        // On loopback a connection is made at once or not at all.
        let mut stream = TcpStream::connect(SERVER).ok()?;
        stream.set_nonblocking(true).ok()?;
        let mut whole = length.to_be_bytes().to_vec();
        whole.extend_from_slice(message);
        stream.write_all(&whole).ok()?;
        self.calls.push(Call { question, stream, answer: Vec::new(), since: Instant::now() });
        Some(())
    }

    /// Answers that have come.
    pub(crate) fn ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut message = [0_u8; 65535];
        while let Ok(length) = self.socket.recv(&mut message) {
            let Some(([a, b], rest)) = message[..length].split_first_chunk::<2>() else { continue };
            let Some(asked) = self.asked.remove(&u16::from_be_bytes([*a, *b])) else { continue };
            let mut answer = asked.original.to_vec();
            answer.extend_from_slice(rest);
            frames.push(Frame::new(Kind::Answer, asked.question, answer));
        }
        self.calls.retain_mut(|call| match call.read() {
            Progress::Open => true,
            Progress::Done(answer) => {
                frames.push(Frame::new(Kind::Answer, call.question, answer));
                false
            }
        });
        frames
    }
}

enum Progress {
    Open,
    Done(Vec<u8>),
}

impl Call {
    fn read(&mut self) -> Progress {
        let mut piece = [0_u8; 4096];
        loop {
            if let Some((length, rest)) = self.answer.split_first_chunk::<2>()
                && let Some(answer) = rest.get(..usize::from(u16::from_be_bytes(*length)))
            {
                return Progress::Done(answer.to_vec());
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Progress::Done(Vec::new()),
                Ok(length) => self.answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Progress::Open,
                Err(_) => return Progress::Done(Vec::new()),
            }
        }
    }
}
