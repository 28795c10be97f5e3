//! Protocol Buffers, as far as CRIU's requests and answers need them: numbers, and what has a length.

/// A message being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(Vec<u8>);

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

const NUMBER: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    fn varint(&mut self, mut value: u64) {
        loop {
            let byte = u8::try_from(value & 0x7f).unwrap_or_default();
            value >>= 7;
            if value == 0 {
                return self.0.push(byte);
            }
            self.0.push(byte | 0x80);
        }
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    /// A number; a negative one takes ten bytes, as the encoding has it.
    #[must_use]
    pub(crate) fn number(mut self, field: u32, value: i64) -> Self {
        self.key(field, NUMBER);
        self.varint(value.cast_unsigned());
        self
    }

    /// `true`, or nothing.
    #[must_use]
    pub(crate) fn flag(self, field: u32, on: bool) -> Self {
        if on { self.number(field, 1) } else { self }
    }

    #[must_use]
    pub(crate) fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub(crate) fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    #[must_use]
    pub(crate) fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// The fields of a message, in order; `None` for what is none.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            NUMBER => Value::Number(varint(&mut bytes)?),
            LENGTH => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            FIXED_64 => Value::Bytes(take(&mut bytes, 8)?),
            FIXED_32 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        fields.push((field, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().text(1, "pipe:[7]").number(2, 3);
        let message =
            Message::default().number(1, 2).flag(3, false).flag(4, true).number(9, -1).message(37, &inner);
        let read = fields(message.encoded()).unwrap();
        assert_eq!(read[0], (1, Value::Number(2)));
        assert_eq!(read[1], (4, Value::Number(1)));
        assert_eq!(read[2], (9, Value::Number(u64::MAX)));
        let (37, Value::Bytes(bytes)) = read[3] else { panic!("{read:?}") };
        assert_eq!(fields(bytes).unwrap(), [(1, Value::Bytes(b"pipe:[7]")), (2, Value::Number(3))]);
        // As protoc has it: field 1, a number, 150.
        assert_eq!(Message::default().number(1, 150).encoded(), [0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let whole = Message::default().number(1, 300).text(2, "abc");
        for length in 0..whole.encoded().len() {
            let read = fields(&whole.encoded()[..length]);
            assert!(read.is_none_or(|fields| fields.len() < 2), "{length}");
        }
        assert_eq!(fields(&[0xff; 11]), None);
        assert_eq!(fields(&[0x0f]), None);
    }
}
