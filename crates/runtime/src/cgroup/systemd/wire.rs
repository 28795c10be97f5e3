//! D-Bus messages as bytes: what is said to systemd, and what is understood of its answers.
//!
//! Only what this driver needs: numbers, texts, and lists of them, in the byte order of this machine's kind
//! (little-endian). What comes in is checked like everything else that comes in.

use super::Value;

/// Kinds of messages.
pub(super) const CALL: u8 = 1;
pub(super) const ANSWER: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// The longest message that is read; systemd's answers here are a path long.
const LENGTH_MAX: usize = 1 << 20;

/// A call, as bytes.
pub(super) struct Call<'a> {
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) signature: &'a str,
    pub(super) body: Writer,
}

impl Call<'_> {
    pub(super) fn bytes(self, serial: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes.extend([b'l', CALL, 0, 1]);
        writer.number(u32::try_from(self.body.bytes.len()).unwrap_or(u32::MAX));
        writer.number(serial);
        writer.list(8, |fields| {
            let texts = [
                (1, "o", Some(self.path)),
                (2, "s", Some(self.interface)),
                (3, "s", Some(self.member)),
                (6, "s", self.destination),
            ];
            for (code, signature, text) in texts {
                let Some(text) = text else { continue };
                fields.align(8);
                fields.bytes.push(code);
                fields.signature(signature);
                fields.text(text);
            }
            if !self.signature.is_empty() {
                fields.align(8);
                fields.bytes.push(8);
                fields.signature("g");
                fields.signature(self.signature);
            }
        });
        writer.align(8);
        writer.bytes.extend(self.body.bytes);
        writer.bytes
    }
}

/// Bytes of a message that grows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        while !self.bytes.len().is_multiple_of(to) {
            self.bytes.push(0);
        }
    }

    pub(super) fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.align(8);
        self.bytes.extend(number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array of elements that begin at multiples of `alignment`.
    pub(super) fn list(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.align(4);
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.align(alignment);
        let begin = self.bytes.len();
        fill(self);
        let length = u32::try_from(self.bytes.len() - begin).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// A value with its type.
    pub(super) fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.number(u32::from(*value)),
            Value::Number(value) => self.long(*value),
            Value::Signed(value) => self.number(value.cast_unsigned()),
            Value::Text(value) => self.text(value),
            Value::Texts(values) => self.list(4, |list| values.iter().for_each(|text| list.text(text))),
            Value::Bytes(values) => self.list(1, |list| list.bytes.extend(values)),
            Value::Numbers(values) => self.list(4, |list| values.iter().for_each(|n| list.number(*n))),
            Value::Pairs(values) => self.list(8, |list| {
                for (one, other) in values {
                    list.align(8);
                    list.text(one);
                    list.text(other);
                }
            }),
        }
    }
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Number(_) => "t",
            Self::Signed(_) => "i",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    /// The call that it answers.
    pub(super) answers: Option<u32>,
    /// A signal's.
    pub(super) member: String,
    /// An error's name.
    pub(super) error: String,
    /// The texts and paths at the beginning of its content, numbers left out.
    pub(super) texts: Vec<String>,
}

/// How long the message is that begins with these 16 bytes; `None`: it is none.
pub(super) fn length(begin: &[u8; 16]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = <[u8; 4]>::try_from(begin.get(at..at + 4)?).ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if begin[0] != b'l' || begin[3] != 1 {
        return None;
    }
    let (body, fields) = (number(4)?, number(12)?);
    let total = fields.checked_add(16)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (total <= LENGTH_MAX).then_some(total)
}

/// A whole message; `None`: it is not one.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let begin: &[u8; 16] = bytes.get(..16)?.try_into().ok()?;
    if length(begin)? != bytes.len() {
        return None;
    }
    let mut message = Message { kind: begin[1], ..Message::default() };
    let mut reader = Reader { bytes, at: 12 };
    let end = usize::try_from(reader.number()?).ok()?.checked_add(16)?;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (3, "s") => message.member = reader.text()?,
            (4, "s") => message.error = reader.text()?,
            (5, "u") => message.answers = Some(reader.number()?),
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.number()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    reader.align(8)?;
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.texts.push(reader.text()?),
            'u' | 'i' | 'b' => drop(reader.number()?),
            // What follows is nobody's business here.
            _ => break,
        }
    }
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Text with the zero that ends it.
    fn ended(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.ended(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.ended(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As gdbus writes it: `org.freedesktop.DBus.Hello`, with serial 1.
    #[test]
    fn a_call_is_written_as_others_write_it() {
        let call = Call {
            destination: Some("org.freedesktop.DBus"),
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
            body: Writer::default(),
        };
        let bytes = call.bytes(1);
        let mut known = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x6d\0\0\0".to_vec();
        known.extend(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
        known.extend(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        known.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
        known.extend(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        assert_eq!(bytes, known);
        assert_eq!(length(bytes[..16].try_into().unwrap()), Some(bytes.len()));
    }

    #[test]
    fn a_removed_job_is_understood() {
        let mut body = Writer::default();
        body.number(7);
        body.text("/org/freedesktop/systemd1/job/7");
        body.text("a.scope");
        body.text("done");
        let call = Call {
            destination: None,
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "JobRemoved",
            signature: "uoss",
            body,
        };
        let mut bytes = call.bytes(9);
        bytes[1] = SIGNAL;
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (SIGNAL, "JobRemoved"));
        assert_eq!(message.texts, ["/org/freedesktop/systemd1/job/7", "a.scope", "done"]);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn values_are_aligned_as_their_types_want_it() {
        let written = |value: &Value| {
            let mut writer = Writer::default();
            writer.variant(value);
            writer.bytes
        };
        assert_eq!(written(&Value::Bool(true)), b"\x01b\0\0\x01\0\0\0");
        assert_eq!(written(&Value::Number(5)), b"\x01t\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(written(&Value::Numbers(vec![2])), b"\x02au\0\x04\0\0\0\x02\0\0\0");
        assert_eq!(written(&Value::Bytes(vec![3, 1])), b"\x02ay\0\x02\0\0\0\x03\x01");
        let pair = Value::Pairs(vec![("a".to_owned(), "b".to_owned())]);
        let known: &[u8] = b"\x05a(ss)\0\0\x0e\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0";
        assert_eq!(written(&pair), known);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
            // With a beginning that is believed.
            let mut message = b"l\x02\0\x01".to_vec();
            message.extend(bytes);
            let _ = parse(&message);
        }
    }
}
