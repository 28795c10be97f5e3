//! The words between a hypervisor process (`cata-vmm`, the host's end) and `cata-guest` (process 1 of the
//! guest), both ends from this one file. Neither trusts the other.
//!
//! The channel is one stream of bytes in each direction: a virtio port named [`PORT`]. On it travel frames:
//!
//! ```text
//!  0        4      5          9
//!  | length | kind | session  | payload: length bytes
//!    u32 LE   u8     u32 LE
//! ```
//!
//! A frame whose length is beyond [`Kind::longest`] or whose kind is unknown ends the conversation: the host
//! ends the machine, the guest panics its kernel.
//!
//! A **session** is one process in the guest and its streams; number 1 is the container's first process, others
//! are `exec` sessions; 0 is the machine itself. Numbers are the host's to give and are never used twice.
//!
//! | from | frame | payload | |
//! |---|---|---|---|
//! | guest | `Hello` (0) | [`Hello`] | first of all, once |
//! | host | `Boot` (0) | [`Boot`] | answered by `Booted` or `Fatal` |
//! | guest | `Booted` (0) | empty | mounts and network are there |
//! | guest | `Fatal` (0) | text | it cannot go on; nothing follows |
//! | host | `Start` (n) | [`Start`] | answered by `Started` or `Failed` |
//! | guest | `Started` (n) | [`Started`] | the program runs |
//! | guest | `Failed` (n) | [`Failed`] | it does not; the session is over |
//! | both | `Data` (n) | [`Stream`] as a byte, then bytes | never more than was granted |
//! | both | `Eof` (n) | [`Stream`] | no more `Data` follows on it |
//! | both | `Credit` (n) | [`Stream`], u32 LE | so many bytes more may be sent |
//! | host | `Signal` (n) | i32 LE | to the session's process |
//! | guest | `Fate` (n) | i32 LE, then 1 if the kernel dropped it | answers every `Signal` |
//! | host | `Resize` (n) | rows, columns: u16 LE | of the session's terminal |
//! | guest | `Exiting` (n) | empty | the process has ended; what it wrote last follows |
//! | guest | `Exited` (n) | [`Exited`] | after the last `Data`; the session is over |
//! | host | `Hangup` (n) | empty | nobody listens any more: kill it |
//! | host | `Ask` (n) | [`Ask`] | n: a number of the host's choosing, not of a session |
//! | guest | `Told` (n) | [`Told`] | the answer |
//! | host | `Clock` (0) | u64 LE | nanoseconds since the epoch |
//! | guest | `Query` (n) | 1 if over TCP, then a DNS message | n: of the guest's choosing |
//! | host | `Answer` (n) | a DNS message | empty: there is none |
//!
//! **Flow control.** At the start of a session either end may send [`WINDOW`] bytes on each stream; whoever
//! receives grants what it has passed on. So a process that does not read, or a client that is slow, stops
//! its own stream and no other, and neither end ever holds more than a window a stream. Sending more than was
//! granted ends the conversation.

use std::collections::BTreeMap;

use cata_runtime::cgroup::CgroupPlan;
use cata_runtime::plan::{Plan, Process};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The channel's name as a virtio port.
pub const PORT: &str = "cata.channel";
/// The tag of the file system that holds the container's tree.
pub const DECK: &str = "deck";
/// What of it is the container's root.
pub const DECK_ROOT: &str = "root";
/// Where in it further trees are, by number.
pub const DECK_MOUNTS: &str = "mounts";
/// Of this protocol.
pub const VERSION: u32 = 1;
/// The session of the container's first process.
pub const FIRST: u32 = 1;
/// Bytes that may be under way on one stream.
pub const WINDOW: u32 = 128 * 1024;
/// Most bytes of a stream in one frame.
pub const PIECE: usize = 16 * 1024;
/// Bytes of a frame before its payload.
pub const HEADER: usize = 9;
/// The longest document.
pub const DOCUMENT: usize = 1024 * 1024;
/// The longest DNS message, and the byte before it.
const NAME_MESSAGE: usize = 65536;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $longest:expr;)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// `None`: nobody knows it.
            #[must_use]
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The most bytes that may follow.
            #[must_use]
            pub fn longest(self) -> usize {
                match self {
                    $(Self::$name => $longest,)*
                }
            }
        }
    };
}

kinds! {
    /// The guest is there.
    Hello = 1, 1024;
    /// What the machine is for.
    Boot = 2, DOCUMENT;
    /// It is ready.
    Booted = 3, 0;
    /// It will never be.
    Fatal = 4, 4096;
    /// Start a process.
    Start = 5, DOCUMENT;
    /// It runs.
    Started = 6, 65536;
    /// It does not.
    Failed = 7, 65536;
    /// Bytes of a stream.
    Data = 8, PIECE + 1;
    /// A stream's end.
    Eof = 9, 1;
    /// Room for more.
    Credit = 10, 5;
    /// For a process.
    Signal = 11, 4;
    /// What became of a signal.
    Fate = 12, 5;
    /// Of a terminal.
    Resize = 13, 4;
    /// A process has ended, its output has not.
    Exiting = 21, 0;
    /// A process and its output have ended.
    Exited = 14, 4096;
    /// Nobody listens any more.
    Hangup = 15, 0;
    /// A question about the guest.
    Ask = 16, 1024;
    /// Its answer.
    Told = 17, DOCUMENT;
    /// What time it is.
    Clock = 18, 8;
    /// A question to the network's name service.
    Query = 19, NAME_MESSAGE;
    /// Its answer.
    Answer = 20, NAME_MESSAGE;
}

/// One frame, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Whose.
    pub session: u32,
    /// What follows.
    pub payload: Vec<u8>,
}

/// The other end does not keep to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not a kind of frame.
    #[error("unknown frame {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a frame {0:?} of {1} bytes")]
    Length(Kind, usize),
    /// Its payload does not read.
    #[error("an unintelligible frame {0:?}: {1}")]
    Payload(Kind, String),
    /// Out of turn.
    #[error("a frame {0:?} out of turn")]
    Turn(Kind),
    /// More than was granted.
    #[error("more bytes than were granted")]
    Window,
}

impl Frame {
    /// A frame with these bytes.
    #[must_use]
    pub fn new(kind: Kind, session: u32, payload: Vec<u8>) -> Self {
        Self { kind, session, payload }
    }

    /// A frame with a document.
    ///
    /// # Errors
    /// [`ProtocolError::Length`] for one that is too long, [`ProtocolError::Payload`] for one that cannot be written.
    pub fn document<T: Serialize>(kind: Kind, session: u32, document: &T) -> Result<Self, ProtocolError> {
        let payload =
            serde_json::to_vec(document).map_err(|e| ProtocolError::Payload(kind, e.to_string()))?;
        if payload.len() > kind.longest() {
            return Err(ProtocolError::Length(kind, payload.len()));
        }
        Ok(Self { kind, session, payload })
    }

    /// Bytes of a stream; at most [`PIECE`].
    #[must_use]
    pub fn data(session: u32, stream: Stream, bytes: &[u8]) -> Self {
        let mut payload = Vec::with_capacity(bytes.len() + 1);
        payload.push(stream as u8);
        payload.extend_from_slice(bytes);
        Self { kind: Kind::Data, session, payload }
    }

    /// A stream's end.
    #[must_use]
    pub fn eof(session: u32, stream: Stream) -> Self {
        Self { kind: Kind::Eof, session, payload: vec![stream as u8] }
    }

    /// Room for more.
    #[must_use]
    pub fn credit(session: u32, stream: Stream, bytes: u32) -> Self {
        let [a, b, c, d] = bytes.to_le_bytes();
        Self { kind: Kind::Credit, session, payload: vec![stream as u8, a, b, c, d] }
    }

    /// A signal.
    #[must_use]
    pub fn signal(session: u32, signal: i32) -> Self {
        Self { kind: Kind::Signal, session, payload: signal.to_le_bytes().to_vec() }
    }

    /// What became of one.
    #[must_use]
    pub fn fate(session: u32, signal: i32, dropped: bool) -> Self {
        let mut payload = signal.to_le_bytes().to_vec();
        payload.push(u8::from(dropped));
        Self { kind: Kind::Fate, session, payload }
    }

    /// A terminal's size.
    #[must_use]
    pub fn resize(session: u32, rows: u16, columns: u16) -> Self {
        let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
        Self { kind: Kind::Resize, session, payload: vec![a, b, c, d] }
    }

    /// Adds its bytes.
    pub fn write(&self, to: &mut Vec<u8>) {
        // Nothing as long as a u32 can say is ever made.
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        to.extend_from_slice(&length.to_le_bytes());
        to.push(self.kind as u8);
        to.extend_from_slice(&self.session.to_le_bytes());
        to.extend_from_slice(&self.payload);
    }

    fn bad(&self, why: impl std::fmt::Display) -> ProtocolError {
        ProtocolError::Payload(self.kind, why.to_string())
    }

    /// The document in it.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ProtocolError> {
        serde_json::from_slice(&self.payload).map_err(|e| self.bad(e))
    }

    /// The stream it is about, and the rest.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn stream(&self) -> Result<(Stream, &[u8]), ProtocolError> {
        let (first, rest) = self.payload.split_first().ok_or_else(|| self.bad("empty"))?;
        Ok((Stream::from_byte(*first).ok_or_else(|| self.bad("no such stream"))?, rest))
    }

    /// Its payload as a number.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn number<const N: usize>(&self) -> Result<[u8; N], ProtocolError> {
        self.payload.as_slice().try_into().map_err(|_| self.bad("of another length"))
    }

    /// A stream and how much more may be sent on it.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn granted(&self) -> Result<(Stream, u32), ProtocolError> {
        let (stream, rest) = self.stream()?;
        let bytes = <[u8; 4]>::try_from(rest).map_err(|_| self.bad("of another length"))?;
        Ok((stream, u32::from_le_bytes(bytes)))
    }

    /// A signal and whether the kernel dropped it.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn signal_fate(&self) -> Result<(i32, bool), ProtocolError> {
        let [a, b, c, d, dropped] = self.number::<5>()?;
        Ok((i32::from_le_bytes([a, b, c, d]), dropped != 0))
    }

    /// Rows and columns.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`].
    pub fn size(&self) -> Result<(u16, u16), ProtocolError> {
        let [a, b, c, d] = self.number::<4>()?;
        Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
    }
}

/// Takes frames out of a stream of bytes that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Adds what arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`]; from then on nothing can be made of what follows.
    pub fn take(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let rest = &self.bytes[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, s0, s1, s2, s3] = *header;
        let kind = Kind::from_byte(kind).ok_or(ProtocolError::Kind(kind))?;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > kind.longest() {
            return Err(ProtocolError::Length(kind, length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let payload = payload.to_vec();
        self.taken += HEADER + length;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
            // A document passed by: its room is not kept.
            self.bytes.shrink_to(64 * 1024);
        }
        Ok(Some(Frame { kind, session: u32::from_le_bytes([s0, s1, s2, s3]), payload }))
    }
}

/// A session's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// To the process.
    Stdin = 0,
    /// From it; with a terminal, all of it.
    Stdout = 1,
    /// From it.
    Stderr = 2,
}

impl Stream {
    /// `None`: there is no such stream.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// How much one end may still send on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance(u32);

impl Default for Allowance {
    fn default() -> Self {
        Self(WINDOW)
    }
}

impl Allowance {
    /// So many bytes now, and no more than a piece.
    #[must_use]
    pub fn now(self) -> usize {
        usize::try_from(self.0).unwrap_or(0).min(PIECE)
    }

    /// Spends some.
    ///
    /// # Errors
    /// [`ProtocolError::Window`] when there is less: by our own sending never.
    pub fn spend(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        let bytes = u32::try_from(bytes).map_err(|_| ProtocolError::Window)?;
        self.0 = self.0.checked_sub(bytes).ok_or(ProtocolError::Window)?;
        Ok(())
    }

    /// Gets more.
    ///
    /// # Errors
    /// [`ProtocolError::Window`] when it would be more than a window.
    pub fn earn(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        let sum = self.0.checked_add(bytes).filter(|sum| *sum <= WINDOW);
        self.0 = sum.ok_or(ProtocolError::Window)?;
        Ok(())
    }
}

/// The guest's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// Its kernel's release.
    pub kernel: String,
    /// Drivers that could not be loaded, and why.
    pub drivers: Vec<String>,
}

/// What the machine is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Nanoseconds since the epoch.
    pub clock: u64,
    /// In place of whatever the kernel said.
    pub hostname: String,
    /// Its interfaces.
    pub network: Vec<Interface>,
    /// Whether 127.0.0.11:53 is to be passed on.
    pub names: bool,
    /// Whether IPv6 is used.
    pub ipv6: bool,
    /// The cgroup of the container.
    pub cgroup: CgroupPlan,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// By which it is found.
    pub mac: [u8; 6],
    /// Largest packet, if not the default.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Where default routes lead.
    pub gateways: Vec<std::net::IpAddr>,
}

/// A process to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The container's first.
    First {
        /// Everything about it; paths are the guest's.
        plan: Box<Plan>,
        /// Every device node of the guest too.
        all_devices: bool,
    },
    /// One more.
    Further {
        /// Everything about it.
        process: Box<Process>,
    },
}

/// A process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// As the guest sees it.
    pub pid: i32,
    /// What the guest could not give.
    pub withheld: Vec<String>,
}

/// A process does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// In words, with every cause.
    pub message: String,
    /// A way out, where one is known.
    pub hint: Option<String>,
    /// Docker's exit code: 125, 126 or 127.
    pub exit_code: i32,
}

/// A process has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// 128+n for signal n.
    pub code: i32,
    /// The guest's OOM killer took a process of the container meanwhile.
    pub oom: bool,
    /// The most memory that the container's processes had, where the guest's kernel tells.
    #[serde(default)]
    pub peak: Option<u64>,
}

/// A question about the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The container's processes.
    Processes,
    /// What the guest uses.
    Usage,
    /// What the container's first process sees.
    View,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// See [`Ask::Processes`].
    Processes {
        /// The container's, in no order.
        list: Vec<RawProcess>,
        /// When the guest booted: seconds since the epoch, by its clock.
        boot: u64,
        /// Bytes of memory.
        memory: u64,
        /// Of the clock in `stat`.
        ticks: u64,
    },
    /// See [`Ask::Usage`].
    Usage {
        /// Bytes the guest has.
        memory_total: u64,
        /// Bytes that are neither free nor easily made free.
        memory_used: u64,
        /// How many processes and threads the container has.
        processes: u64,
        /// How many it may have.
        #[serde(default)]
        most_processes: Option<u64>,
        /// Bytes that came and went through its interfaces, loopback not counted.
        traffic: (u64, u64),
    },
    /// See [`Ask::View`].
    View(View),
    /// It could not be found out.
    Unknown(String),
}

/// A kernel and what a process sees through it: read by [`crate::view::of`] in the guest, and by the same on the
/// host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// The kernel's release.
    pub kernel: String,
    /// A number that the kernel made up when it booted: two processes with the same one share a kernel.
    pub boot: String,
    /// Processors that the kernel has.
    pub cpus: u32,
    /// Bytes of memory that the kernel has.
    pub memory: u64,
    /// The process's namespaces: kind, and number in that kernel.
    pub namespaces: BTreeMap<String, u64>,
    /// Type of the file system that its root is on.
    pub root: String,
    /// Device nodes that it has, by name below `/dev`.
    pub nodes: Vec<String>,
    /// Drivers of the machine's devices that its kernel runs (PCI and virtio).
    pub drivers: Vec<String>,
}

/// A process as the guest's `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawProcess {
    /// As the guest sees it.
    pub pid: i32,
    /// Its `stat`.
    pub stat: String,
    /// Its `status`.
    pub status: String,
    /// Its `cmdline`, zeros and all.
    pub cmdline: String,
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
