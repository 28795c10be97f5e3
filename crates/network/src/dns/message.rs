//! PURE: DNS messages (RFC 1035, 6891), as far as a name service at the edge has to understand them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address.
pub const A: u16 = 1;
/// A name for an address.
pub const PTR: u16 = 12;
/// An IPv6 address.
pub const AAAA: u16 = 28;
/// Whatever there is.
pub const ANY: u16 = 255;
const OPT: u16 = 41;
/// The class of the internet.
pub const IN: u16 = 1;

const HEADER: usize = 12;
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
/// What every client can take in a datagram.
const DATAGRAM: usize = 512;
const DATAGRAM_MAX: usize = 4096;

/// How a reply came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// Well, perhaps with nothing of that kind.
    NoError = 0,
    /// The question cannot be read.
    FormatError = 1,
    /// Nobody could be asked.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Not a question.
    NotImplemented = 4,
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A host name in lower case, without the final dot.
    Name(String),
    /// An address, asked backwards.
    Address(IpAddr),
    /// Anything that no container can be called.
    Foreign,
}

/// A question that can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What it is about.
    pub subject: Subject,
    /// The record type asked for.
    pub kind: u16,
    /// The class asked for.
    pub class: u16,
    /// Where the question section ends.
    end: usize,
    /// The largest datagram the client takes.
    datagram: usize,
}

/// What arrived is not a question that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAQuestion {
    /// To be passed over in silence: too short, or itself a reply.
    Noise,
    /// To be answered with a code.
    Refuse(Code),
}

impl Question {
    /// Reads a query.
    ///
    /// # Errors
    /// [`NotAQuestion`].
    pub fn parse(query: &[u8]) -> Result<Self, NotAQuestion> {
        let flags = u16_at(query, 2).filter(|_| query.len() >= HEADER).ok_or(NotAQuestion::Noise)?;
        if flags & RESPONSE != 0 {
            return Err(NotAQuestion::Noise);
        }
        if flags & OPCODE != 0 {
            return Err(NotAQuestion::Refuse(Code::NotImplemented));
        }
        let broken = NotAQuestion::Refuse(Code::FormatError);
        if u16_at(query, 4) != Some(1) {
            return Err(broken);
        }
        let (labels, at) = labels(query, HEADER).ok_or(broken)?;
        let kind = u16_at(query, at).ok_or(broken)?;
        let class = u16_at(query, at + 2).ok_or(broken)?;
        let end = at + 4;
        Ok(Self { subject: subject(&labels), kind, class, end, datagram: datagram(query, end) })
    }

    /// The question section's bytes in the query it was read from.
    #[must_use]
    pub fn section<'q>(&self, query: &'q [u8]) -> &'q [u8] {
        query.get(HEADER..self.end).unwrap_or_default()
    }

    /// The largest datagram the client takes.
    #[must_use]
    pub fn datagram(&self) -> usize {
        self.datagram
    }

    /// Whether the name has no dot: somebody's machine here, rather than a name of the world.
    #[must_use]
    pub fn is_single_label(&self) -> bool {
        matches!(&self.subject, Subject::Name(name) if !name.contains('.'))
    }
}

/// One record of a reply; it answers the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// [`A`] or [`AAAA`].
    Address(IpAddr),
    /// [`PTR`].
    Name(String),
}

/// Writes a reply to `query`, whose question section ends at `question`; as many records as fit in `limit`.
#[must_use]
pub fn reply(
    query: &[u8],
    question: Option<&Question>,
    code: Code,
    records: &[Record],
    ttl: u32,
    limit: usize,
) -> Vec<u8> {
    let section = question.map_or(&[][..], |question| question.section(query));
    let asked = u16_at(query, 2).unwrap_or(0);
    let mut flags = RESPONSE | RECURSION_AVAILABLE | (asked & RECURSION_DESIRED) | code as u16;
    if code == Code::NotImplemented {
        flags |= asked & OPCODE;
    }
    let mut bytes = Vec::with_capacity(HEADER + section.len() + records.len() * 28);
    bytes.extend_from_slice(query.get(..2).unwrap_or(&[0, 0]));
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&u16::from(question.is_some()).to_be_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(section);
    let mut count: u16 = 0;
    for record in records {
        let before = bytes.len();
        push(&mut bytes, record, ttl);
        if bytes.len() > limit {
            bytes.truncate(before);
            flags |= TRUNCATED;
            break;
        }
        count += 1;
    }
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// A message's id.
#[must_use]
pub fn id(message: &[u8]) -> Option<u16> {
    u16_at(message, 0)
}

/// Gives a message another id.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Whether `message` is a reply with this id to this question section.
#[must_use]
pub fn is_reply_to(message: &[u8], id: u16, section: &[u8]) -> bool {
    u16_at(message, 0) == Some(id)
        && u16_at(message, 2).is_some_and(|flags| flags & RESPONSE != 0)
        && u16_at(message, 4) == Some(1)
        && message
            .get(HEADER..HEADER + section.len())
            .is_some_and(|asked| asked.eq_ignore_ascii_case(section))
}

/// Whether a reply says that its server could not or would not answer.
#[must_use]
pub fn is_failure(message: &[u8]) -> bool {
    const SERVER_FAILURE: u16 = 2;
    const REFUSED: u16 = 5;
    u16_at(message, 2).is_none_or(|flags| matches!(flags & 0xf, SERVER_FAILURE | REFUSED))
}

fn push(bytes: &mut Vec<u8>, record: &Record, ttl: u32) {
    /// The name of the question, which begins right after the header.
    const QUESTION: [u8; 2] = [0xc0, HEADER as u8];
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
        Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
        Record::Name(name) => (PTR, wire_name(name)),
    };
    bytes.extend_from_slice(&QUESTION);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&IN.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&data);
}

/// Labels that are empty or too long are left out: such a name was never given to anybody.
fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty() && label.len() <= 63) {
        if bytes.len() + label.len() + 2 > 255 {
            break;
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The labels of the name at `at`, and where it ends. A question's name has no pointers.
fn labels(message: &[u8], mut at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let start = at;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        if length > 63 || at + 1 + length - start > 254 && length != 0 {
            return None;
        }
        at += 1;
        if length == 0 {
            return Some((labels, at));
        }
        labels.push(message.get(at..at + length)?);
        at += length;
    }
}

fn subject(labels: &[&[u8]]) -> Subject {
    let allowed = |label: &&[u8]| label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if labels.is_empty() || !labels.iter().all(allowed) {
        return Subject::Foreign;
    }
    // Only ASCII is left.
    let text: Vec<String> =
        labels.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let words: Vec<&str> = text.iter().map(String::as_str).collect();
    match words.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => {
            let octets = [a, b, c, d].map(|word| word.parse::<u8>().ok());
            match octets {
                [Some(a), Some(b), Some(c), Some(d)] => Subject::Address(Ipv4Addr::new(a, b, c, d).into()),
                _ => Subject::Foreign,
            }
        }
        [digits @ .., "ip6", "arpa"] if digits.len() == 32 => {
            let number = digits.iter().rev().try_fold(0_u128, |number, digit| match digit.len() {
                1 => u128::from_str_radix(digit, 16).ok().map(|digit| number << 4 | digit),
                _ => None,
            });
            number.map_or(Subject::Foreign, |number| Subject::Address(Ipv6Addr::from(number).into()))
        }
        _ => Subject::Name(text.join(".")),
    }
}

/// Looks through the records after the question for the one in which a client says what it can take.
fn datagram(query: &[u8], mut at: usize) -> usize {
    let records: usize = [6, 8, 10].into_iter().filter_map(|at| u16_at(query, at)).map(usize::from).sum();
    for _ in 0..records.min(16) {
        let Some(name_end) = skip_name(query, at) else { break };
        let (Some(kind), Some(size), Some(length)) =
            (u16_at(query, name_end), u16_at(query, name_end + 2), u16_at(query, name_end + 8))
        else {
            break;
        };
        if kind == OPT {
            return usize::from(size).clamp(DATAGRAM, DATAGRAM_MAX);
        }
        at = name_end + 10 + usize::from(length);
    }
    DATAGRAM
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}
