//! A compiled filter: what a plan carries and what is loaded.

use std::fmt::Write as _;
use std::io;

use cata_sys::seccomp::{self, Instruction};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// `SECCOMP_RET_USER_NOTIF`.
pub(super) const RET_NOTIFY: u32 = 0x7fc0_0000;

/// A seccomp filter ready to load: classic BPF and the flags to load it with.
///
/// As text (serde) it is one hexadecimal string: 8 digits of flags, then 16 an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The instructions.
    pub code: Vec<Instruction>,
}

impl Program {
    /// Confines the calling thread. Allocates nothing: may be called between clone and exec.
    ///
    /// # Errors
    /// See [`seccomp::load`].
    pub fn load(&self) -> io::Result<()> {
        seccomp::load(&self.code, self.flags)
    }

    /// Whether some calls are handed on to a listener.
    #[must_use]
    pub fn notifies(&self) -> bool {
        const RETURN: u16 = 0x06;
        self.code.iter().any(|i| i.code == RETURN && i.operand == RET_NOTIFY)
    }

    /// Confines the calling thread and returns who is told of the calls that are handed on.
    ///
    /// # Errors
    /// See [`seccomp::load_notifying`].
    pub fn load_notifying(&self) -> io::Result<std::os::fd::OwnedFd> {
        seccomp::load_notifying(&self.code, self.flags)
    }

    /// The program as text: what serde writes.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_hex()
    }

    /// From [`Program::to_text`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_hex(text)
    }

    fn to_hex(&self) -> String {
        let mut text = String::with_capacity(8 + self.code.len() * 16);
        // Writing to a String cannot fail.
        let _ = write!(text, "{:08x}", self.flags);
        for i in &self.code {
            let _ = write!(text, "{:04x}{:02x}{:02x}{:08x}", i.code, i.jump_true, i.jump_false, i.operand);
        }
        text
    }

    fn from_hex(text: &str) -> Option<Self> {
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) || text.len() % 16 != 8 {
            return None;
        }
        let number =
            |from: usize, digits: usize| u32::from_str_radix(text.get(from..from + digits)?, 16).ok();
        let code = (8..text.len())
            .step_by(16)
            .map(|at| {
                Some(Instruction {
                    code: u16::try_from(number(at, 4)?).ok()?,
                    jump_true: u8::try_from(number(at + 4, 2)?).ok()?,
                    jump_false: u8::try_from(number(at + 6, 2)?).ok()?,
                    operand: number(at + 8, 8)?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { flags: number(0, 8)?, code })
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Program {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::from_hex(&text).ok_or_else(|| D::Error::custom("not a seccomp program in hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_survives_json() {
        let code = vec![
            Instruction { code: 0x20, jump_true: 0, jump_false: 0, operand: 4 },
            Instruction { code: 0x15, jump_true: 1, jump_false: 255, operand: 0xc000_003e },
        ];
        let program = Program { flags: 4, code };
        let text = serde_json::to_string(&program).unwrap();
        assert_eq!(text, "\"0000000400200000000000040015".to_owned() + "01ffc000003e\"");
        assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
    }

    #[test]
    fn program_refuses_what_is_not_one() {
        for bad in ["", "0000000", "00000000f", "zzzzzzzz", "000000000020000000000004é"] {
            assert_eq!(Program::from_hex(bad), None, "{bad}");
        }
    }
}
