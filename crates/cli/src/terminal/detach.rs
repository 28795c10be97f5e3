//! Detach keys: which they are, and finding them in what is typed. Pure.

use crate::parse::{ParseError, Parsed};

/// A sequence of keys; empty means that nothing detaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Keys(Vec<u8>);

impl Keys {
    /// Ctrl-P, Ctrl-Q.
    pub(crate) fn docker() -> Self {
        Self(vec![16, 17])
    }
}

/// Reads `--detach-keys`: single characters and `ctrl-<letter or one of @[\]^_>`, comma separated.
pub(crate) fn parse(text: &str) -> Parsed<Keys> {
    if text.is_empty() {
        return Ok(Keys::docker());
    }
    text.split(',').map(key).collect::<Parsed<Vec<u8>>>().map(Keys)
}

fn key(text: &str) -> Parsed<u8> {
    let unknown = || ParseError::new(format!("invalid detach keys: Unknown character: '{text}'"));
    if let [character] = text.as_bytes() {
        return if character.is_ascii() { Ok(*character) } else { Err(unknown()) };
    }
    match text.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some([letter @ b'A'..=b'Z']) => Ok(letter - b'A' + 1),
        Some(b"@") => Ok(0),
        Some([sign @ b'['..=b'_']) => Ok(sign - b'[' + 27),
        _ => Err(unknown()),
    }
}

/// What of the typed bytes goes on, and whether the keys were among them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These bytes go on.
    Forward(Vec<u8>),
    /// These bytes go on, then the user leaves.
    Detach(Vec<u8>),
}

/// Looks for the keys across reads; holds back a prefix of them until it is clear what it is.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl<'a> Matcher<'a> {
    /// A matcher that has seen nothing.
    pub(crate) fn new(keys: &'a Keys) -> Self {
        Self { keys: &keys.0, matched: 0 }
    }

    /// Takes what was typed.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> Typed {
        let mut forward = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            while self.matched > 0 && self.keys.get(self.matched) != Some(&byte) {
                self.fall_back(&mut forward);
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(forward);
                }
            } else {
                forward.push(byte);
            }
        }
        Typed::Forward(forward)
    }

    /// Lets go of as few held bytes as needed so that the rest is again a prefix of the keys.
    fn fall_back(&mut self, forward: &mut Vec<u8>) {
        let held = self.keys.get(..self.matched).unwrap_or_default();
        for released in 1..=held.len() {
            let rest = held.get(released..).unwrap_or_default();
            if self.keys.starts_with(rest) {
                forward.extend_from_slice(held.get(..released).unwrap_or_default());
                self.matched = rest.len();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Keys, Matcher, Typed, parse};

    #[test]
    fn parse_reads_control_keys_and_characters() {
        assert_eq!(parse("ctrl-p,ctrl-q"), Ok(Keys::docker()));
        assert_eq!(parse(""), Ok(Keys::docker()));
        assert_eq!(parse("a,ctrl-@,ctrl-[,ctrl-_"), Ok(Keys(vec![b'a', 0, 27, 31])));
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-pp", "a,,b", "é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn feed_finds_keys_across_reads() {
        let keys = Keys::docker();
        let mut matcher = Matcher::new(&keys);
        assert_eq!(matcher.feed(b"ab\x10"), Typed::Forward(b"ab".to_vec()));
        assert_eq!(matcher.feed(b"\x11x"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn feed_gives_back_what_was_no_key_after_all() {
        let keys = Keys::docker();
        let mut matcher = Matcher::new(&keys);
        assert_eq!(matcher.feed(b"\x10"), Typed::Forward(Vec::new()));
        assert_eq!(matcher.feed(b"a"), Typed::Forward(b"\x10a".to_vec()));
        assert_eq!(matcher.feed(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
        let keys = Keys(b"aab".to_vec());
        let mut matcher = Matcher::new(&keys);
        assert_eq!(matcher.feed(b"aaab"), Typed::Detach(b"a".to_vec()));
    }

    #[test]
    fn feed_with_no_keys_forwards_everything() {
        let keys = Keys::default();
        assert_eq!(Matcher::new(&keys).feed(b"\x10\x11"), Typed::Forward(b"\x10\x11".to_vec()));
    }

    proptest! {
        /// Whatever the pieces, the keys are found where a plain search finds them, and nothing is lost.
        #[test]
        fn feed_agrees_with_a_plain_search(
            keys in proptest::collection::vec(0u8..3, 1..4),
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..6), 0..6),
        ) {
            let all: Vec<u8> = pieces.concat();
            let expected = all.windows(keys.len()).position(|w| w == keys);
            let keys = Keys(keys);
            let mut matcher = Matcher::new(&keys);
            let mut forwarded = Vec::new();
            let mut detached = false;
            for piece in &pieces {
                match matcher.feed(piece) {
                    Typed::Forward(bytes) => forwarded.extend(bytes),
                    Typed::Detach(bytes) => {
                        forwarded.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            prop_assert_eq!(detached, expected.is_some());
            let expected = expected.unwrap_or(all.len());
            prop_assert!(all.get(..expected).unwrap().starts_with(&forwarded));
            prop_assert!(detached == (forwarded.len() == expected) || expected - forwarded.len() < keys.0.len());
        }
    }
}
