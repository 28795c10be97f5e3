//! PURE: the kernel's answers. Every length is checked; nothing is trusted.

/// Bytes that are not netlink messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length points outside the message")]
pub struct Malformed;

const HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'b> {
    /// The request with this sequence number was done.
    Acknowledged {
        /// See there.
        sequence: u32,
    },
    /// The request with this sequence number was not done.
    Refused {
        /// See there.
        sequence: u32,
        /// The kernel's error number, positive.
        errno: i32,
        /// The kernel's sentence.
        text: Option<&'b str>,
    },
    /// The end of a list.
    Done,
    /// An object.
    Message {
        /// The message type.
        kind: u16,
        /// What follows the netlink header.
        body: &'b [u8],
    },
}

/// Reads a datagram message by message; ends after the first malformed one.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Result<Answer<'_>, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let answer = split(&mut rest);
            match answer {
                Ok(None) => {}
                Ok(Some(answer)) => return Some(Ok(answer)),
                Err(malformed) => {
                    rest = &[];
                    return Some(Err(malformed));
                }
            }
        }
    })
}

fn split<'b>(rest: &mut &'b [u8]) -> Result<Option<Answer<'b>>, Malformed> {
    let length = u32_at(rest, 0)? as usize;
    let kind = u16_at(rest, 4)?;
    let flags = u16_at(rest, 6)?;
    let sequence = u32_at(rest, 8)?;
    if length < HEADER {
        return Err(Malformed);
    }
    let body = rest.get(HEADER..length).ok_or(Malformed)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Ok(match kind {
        NLMSG_NOOP => None,
        NLMSG_DONE => Some(Answer::Done),
        NLMSG_ERROR => Some(error(body, flags, sequence)?),
        kind => Some(Answer::Message { kind, body }),
    })
}

fn error(body: &[u8], flags: u16, sequence: u32) -> Result<Answer<'_>, Malformed> {
    let errno = u32_at(body, 0)?.cast_signed().saturating_neg();
    if errno == 0 {
        return Ok(Answer::Acknowledged { sequence });
    }
    let mut text = None;
    if flags & NLM_F_ACK_TLVS != 0 {
        let request = if flags & NLM_F_CAPPED != 0 { HEADER } else { u32_at(body, 4)? as usize };
        let after =
            request.checked_next_multiple_of(4).and_then(|length| length.checked_add(4)).ok_or(Malformed)?;
        for (kind, value) in attributes(body.get(after..).unwrap_or(&[])) {
            if kind == NLMSGERR_ATTR_MSG {
                text = std::str::from_utf8(value).ok().map(|text| text.trim_end_matches('\0'));
            }
        }
    }
    Ok(Answer::Refused { sequence, errno, text })
}

/// Reads attributes, flags masked away; ends at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0).ok()?);
        let kind = u16_at(rest, 2).ok()? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// A number in the host's byte order.
///
/// # Errors
/// [`Malformed`] when the bytes end before it.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = bytes.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_ne_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::Batch;

    proptest! {
        #[test]
        fn answers_of_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for answer in answers(&bytes) {
                if let Ok(Answer::Message { body, .. }) = answer {
                    let _ = attributes(body).count();
                }
            }
        }

        #[test]
        fn batch_written_is_read_back(values in proptest::collection::vec(
            (20_u16..500, proptest::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut batch = Batch::new();
            for (kind, value) in &values {
                batch.message(*kind, 0, |body| body.nest(7, |body| body.attribute(9, value)));
            }
            let read: Vec<_> = answers(batch.as_bytes()).map(|answer| match answer {
                Ok(Answer::Message { kind, body }) => {
                    let (outer, nested) = attributes(body).next().unwrap();
                    let (inner, value) = attributes(nested).next().unwrap();
                    assert_eq!((outer, inner), (7, 9));
                    (kind, value.to_vec())
                }
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(read, values);
        }
    }
}
