//! Which devices may be used: the rules as a policy, as version 1's lines, and as version 2's eBPF program.
//!
//! Rules are read in order and the last one that fits decides. A list that does not begin with a rule for all
//! devices starts from "none".

use std::fmt::Write as _;

use cata_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::CgroupError;

/// `BPF_DEVCG_ACC_*`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Char,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None`: both.
    kind: Option<Kind>,
    /// `None`: any.
    major: Option<i32>,
    /// `None`: any.
    minor: Option<i32>,
    access: u8,
}

/// What every container may use, as the OCI demands: making nodes (using them is another matter), null, zero,
/// full, tty, random, urandom, ptmx and terminals.
const DEFAULTS: &[(Kind, Option<i32>, Option<i32>, u8)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),
    (Kind::Char, Some(1), Some(5), ALL),
    (Kind::Char, Some(1), Some(7), ALL),
    (Kind::Char, Some(1), Some(8), ALL),
    (Kind::Char, Some(1), Some(9), ALL),
    (Kind::Char, Some(5), Some(0), ALL),
    (Kind::Char, Some(5), Some(2), ALL),
    (Kind::Char, Some(136), None, ALL),
];

/// Which devices may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePolicy {
    default_allow: bool,
    rules: Vec<Rule>,
}

impl DevicePolicy {
    /// From the specification's list, with what every container may use appended.
    ///
    /// # Errors
    /// [`CgroupError::Value`] for a kind, number or access that does not exist.
    pub fn new(list: &[LinuxDeviceCgroup]) -> Result<Self, CgroupError> {
        let mut policy = Self { default_allow: false, rules: Vec::new() };
        for item in list {
            let rule = Rule::new(item)?;
            if (rule.kind, rule.major, rule.minor, rule.access) == (None, None, None, ALL) {
                policy = Self { default_allow: rule.allow, rules: Vec::new() };
            } else if !policy.rules.contains(&rule) || policy.rules.iter().any(|old| old.allow != rule.allow)
            {
                policy.rules.push(rule);
            }
        }
        for (kind, major, minor, access) in DEFAULTS.iter().copied() {
            let rule = Rule { allow: true, kind: Some(kind), major, minor, access };
            let denies = policy.rules.iter().any(|rule| !rule.allow);
            if denies || !policy.default_allow && !policy.rules.contains(&rule) {
                policy.rules.push(rule);
            }
        }
        Ok(policy)
    }

    /// Whether everything is allowed: then no filter is needed.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.default_allow && self.rules.iter().all(|rule| rule.allow)
    }

    /// Whether what no rule allows is denied.
    pub(super) fn is_closed(&self) -> bool {
        !self.default_allow
    }

    /// All that some rule allows, as systemd names devices, which knows no exceptions.
    pub(super) fn nodes(&self) -> Vec<(String, String)> {
        let mut nodes = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.allow) {
            for (kind, word) in [(Kind::Block, "block"), (Kind::Char, "char")] {
                if rule.kind.is_some_and(|of| of != kind) {
                    continue;
                }
                let groups: Vec<String> = match (rule.major, rule.minor) {
                    (Some(major), Some(minor)) => vec![format!("/dev/{word}/{major}:{minor}")],
                    (Some(major), None) => vec![format!("{word}-{major}")],
                    (None, _) => vec![format!("{word}-*")],
                };
                nodes.extend(groups.into_iter().map(|node| (node, rule.letters())));
            }
        }
        nodes
    }

    /// Version 1: file and line, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let file = |allow| if allow { "devices.allow" } else { "devices.deny" };
        let first = (file(self.default_allow), "a".to_owned());
        let rest = self.rules.iter().flat_map(|rule| {
            let kinds = match rule.kind {
                Some(Kind::Block) => "b",
                Some(Kind::Char) => "c",
                None => "bc",
            };
            kinds.chars().map(|kind| (file(rule.allow), rule.line(kind)))
        });
        std::iter::once(first).chain(rest).collect()
    }

    /// Version 2: the program to attach.
    #[must_use]
    pub fn program(&self) -> DeviceProgram {
        // r2: kind, r3: access not allowed yet, r4: major, r5: minor.
        let mut code = vec![
            insn(LOAD_WORD, 2, 1, 0, 0),
            insn(MOVE_REGISTER, 3, 2, 0, 0),
            insn(AND32, 2, 0, 0, 0xffff),
            insn(SHIFT_RIGHT32, 3, 0, 0, 16),
            insn(LOAD_WORD, 4, 1, 4, 0),
            insn(LOAD_WORD, 5, 1, 8, 0),
        ];
        for rule in self.rules.iter().rev() {
            code.extend(rule.code());
        }
        code.push(insn(MOVE, 0, 0, 0, i32::from(self.default_allow)));
        code.push(insn(EXIT, 0, 0, 0, 0));
        DeviceProgram(code)
    }
}

const LOAD_WORD: u8 = 0x61;
const AND32: u8 = 0x54;
const SHIFT_RIGHT32: u8 = 0x74;
const AND: u8 = 0x57;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `struct bpf_insn` as a number; the fields' order is the same in memory on little-endian machines.
fn insn(operation: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(operation)
        | u64::from(to | from << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

impl Rule {
    fn new(item: &LinuxDeviceCgroup) -> Result<Self, CgroupError> {
        let invalid = |value: String, why| CgroupError::Value { limit: "device rule", value, why };
        let kind = match item.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
            Some(LinuxDeviceType::P) => return Err(invalid("p".to_owned(), "a FIFO is no device")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(i64::MIN..=-1) => Ok(None),
            Some(number) => i32::try_from(number)
                .map(Some)
                .map_err(|_| invalid(number.to_string(), "device numbers are smaller")),
        };
        let access = match item.access().as_deref() {
            None | Some("") => ALL,
            Some(letters) => letters.chars().try_fold(0, |access, letter| match letter {
                'r' => Ok(access | READ),
                'w' => Ok(access | WRITE),
                'm' => Ok(access | MKNOD),
                _ => Err(invalid(letters.to_owned(), "access is made of the letters r, w and m")),
            })?,
        };
        Ok(Self {
            allow: item.allow(),
            kind,
            major: number(item.major())?,
            minor: number(item.minor())?,
            access,
        })
    }

    fn line(&self, kind: char) -> String {
        let number = |number: Option<i32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.letters())
    }

    fn letters(&self) -> String {
        let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        all.into_iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect()
    }

    fn code(&self) -> Vec<u64> {
        let decision = if self.allow {
            // What this rule allows needs no further rule; when nothing is left, the answer is yes.
            vec![insn(AND, 3, 0, 0, i32::from(ALL & !self.access)), insn(JUMP_NOT_EQUAL, 3, 0, 2, 0)]
        } else {
            vec![
                insn(MOVE_REGISTER, 1, 3, 0, 0),
                insn(AND, 1, 0, 0, i32::from(self.access)),
                insn(JUMP_EQUAL, 1, 0, 2, 0),
            ]
        };
        let tests: Vec<(u8, i32)> = [
            self.kind.map(|kind| (2, if kind == Kind::Block { 1 } else { 2 })),
            self.major.map(|major| (4, major)),
            self.minor.map(|minor| (5, minor)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut code = Vec::new();
        for (at, (register, value)) in tests.iter().enumerate() {
            // Behind the remaining tests, the decision and its two instructions: at most seven.
            let offset = i16::try_from(tests.len() - 1 - at + decision.len() + 2).unwrap_or(i16::MAX);
            code.push(insn(JUMP_NOT_EQUAL, *register, 0, offset, *value));
        }
        code.extend(decision);
        code.push(insn(MOVE, 0, 0, 0, i32::from(self.allow)));
        code.push(insn(EXIT, 0, 0, 0, 0));
        code
    }
}

/// An eBPF program of type CGROUP_DEVICE, an instruction a number; hexadecimal text in serde.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProgram(pub Vec<u64>);

impl Serialize for DeviceProgram {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len() * 16);
        for instruction in &self.0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{instruction:016x}");
        }
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for DeviceProgram {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() % 16 != 0 {
            return Err(D::Error::custom("a device program is a multiple of 16 digits"));
        }
        let number = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).map_err(D::Error::custom)?;
            u64::from_str_radix(digits, 16).map_err(D::Error::custom)
        };
        text.as_bytes().chunks(16).map(number).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests;
