//! What the guest's kernel and the programs around it say: the last of it is kept, for the case that nothing
//! follows.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// How lines begin that Debian 12's file server writes at every machine's end, however well that goes: no reason for anything.
const CHATTER: [&str; 5] =
    ["fv_queue_set_started:", "fv_queue_thread:", "fv_remove_watch:", "stop_all_queues:", "virtio_loop:"];

/// So much is kept.
const KEPT: usize = 16 * 1024;

/// See the module.
pub(crate) struct Console {
    from: Option<OwnedFd>,
    text: Vec<u8>,
}

impl Console {
    /// `from` does not block.
    pub(crate) fn new(from: OwnedFd) -> Self {
        Self { from: Some(from), text: Vec::new() }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there.
    pub(crate) fn read(&mut self) {
        let Some(from) = &self.from else { return };
        let mut piece = [0_u8; 4096];
        // A few at a time: a guest that floods its console has no more than its turn.
        for _ in 0..8 {
            match rustix::io::read(from, &mut piece) {
                Ok(0) => {
                    self.from = None;
                    return;
                }
                Ok(length) => {
                    self.text.extend_from_slice(&piece[..length]);
                    let surplus = self.text.len().saturating_sub(KEPT);
                    self.text.drain(..surplus);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.from = None;
                    return;
                }
            }
        }
    }

    /// The last lines, without what terminals would obey.
    pub(crate) fn last(&self, lines: usize) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let clean = |line: &str| -> String { line.chars().filter(|c| !c.is_control()).take(300).collect() };
        let says =
            |line: &String| !line.trim().is_empty() && !CHATTER.iter().any(|part| line.starts_with(part));
        let all: Vec<String> = text.lines().map(clean).filter(says).collect();
        all[all.len().saturating_sub(lines)..].join("; ")
    }

    /// Why the guest's kernel gave up, if it did.
    pub(crate) fn panic(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.text);
        let line = text.lines().find(|line| line.contains("Kernel panic - not syncing"))?;
        let why = line.split("not syncing:").nth(1).unwrap_or(line);
        let own = text.lines().rev().find_map(|line| line.split("cata-guest: ").nth(1));
        let words = own.unwrap_or(why);
        Some(words.chars().filter(|c| !c.is_control()).take(300).collect::<String>().trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_named_and_control_characters_are_not_passed_on() {
        let text = b"[1.0] a\x1b[31m\r\n[2.0] Kernel panic - not syncing: Attempted to kill init!\r\n[2.1] x";
        let console = Console { from: None, text: text.to_vec() };
        assert_eq!(console.panic().as_deref(), Some("Attempted to kill init!"));
        assert_eq!(console.last(1), "[2.1] x");
        assert!(!console.last(9).contains('\x1b'));
    }

    #[test]
    fn what_the_file_server_always_says_is_no_reason() {
        let text = b"fv_queue_thread: kill event on queue 1 - quitting\nno room\nvirtio_loop: Exit\n";
        let console = Console { from: None, text: text.to_vec() };
        assert_eq!(console.last(3), "no room");
    }

    #[test]
    fn the_guests_own_last_words_are_better() {
        let text = b"cata-guest: cannot mount virtiofs\nKernel panic - not syncing: init";
        let console = Console { from: None, text: text.to_vec() };
        assert_eq!(console.panic().as_deref(), Some("cannot mount virtiofs"));
    }
}
