//! From an OCI seccomp profile to classic BPF.
//!
//! A filter is one section an architecture. In a section the numbers of calls are cut into ranges with the
//! same outcome and found by binary search; an outcome is an answer, or conditions on arguments and then an
//! answer. Only loads, comparisons and masks are used, so that the kernel can tell beforehand which calls are
//! always allowed and skips the filter for them.

use std::collections::BTreeMap;

use cata_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator,
};
use cata_sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_TSYNC, Instruction};

use super::syscalls::{Row, foreign, row};
use super::{Arch, Program, SeccompError};

/// BPF_LD | BPF_W | BPF_ABS.
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K.
const EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGT | BPF_K.
const GREATER: u16 = 0x25;
/// BPF_JMP | BPF_JGE | BPF_K.
const AT_LEAST: u16 = 0x35;
/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
/// `__X32_SYSCALL_BIT`.
const X32_BIT: u32 = 0x4000_0000;

/// A filter, and what of the profile has no effect in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The filter.
    pub program: Program,
    /// Names that no architecture known here has: newer than this program, or misspelt.
    pub unknown: Vec<String>,
}

/// Compiles a profile for the architecture this program was built for.
///
/// # Errors
/// [`SeccompError`] naming the rule.
pub fn compile(profile: &LinuxSeccomp) -> Result<Compiled, SeccompError> {
    compile_for(profile, Arch::native()?)
}

/// Compiles a profile for a machine of the given architecture.
///
/// # Errors
/// [`SeccompError`] naming the rule.
pub fn compile_for(profile: &LinuxSeccomp, native: Arch) -> Result<Compiled, SeccompError> {
    let default = answer(profile.default_action(), profile.default_errno_ret(), "(default)")?;
    let mut unknown = Vec::new();
    let rules = rules(profile, &mut unknown)?;
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let mut sections = vec![native];
    if native == Arch::X86_64 && listed.contains(&OciArch::ScmpArchX86) {
        sections.push(Arch::X86);
    }

    let mut code = vec![load(OFFSET_ARCH)];
    for arch in sections {
        let body = section(arch, &rules, default);
        code.push(Instruction { code: EQUAL, jump_true: 1, jump_false: 0, operand: arch.audit() });
        code.push(jump(&body));
        code.extend(body);
    }
    code.push(ret(RET_KILL_PROCESS));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLarge(code.len()));
    }

    unknown.sort_unstable();
    unknown.dedup();
    let flags = profile.flags().as_deref().unwrap_or_default().iter().fold(0, |flags, flag| {
        flags
            | match flag {
                Flag::SeccompFilterFlagLog => FLAG_LOG,
                Flag::SeccompFilterFlagTsync => FLAG_TSYNC,
                Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            }
    });
    Ok(Compiled { program: Program { flags, code }, unknown })
}

/// One rule: if all conditions hold, this is the answer.
struct Rule {
    calls: Vec<&'static Row>,
    conditions: Vec<LinuxSeccompArg>,
    answer: u32,
}

impl Rule {
    /// The argument and the value it must have, if that is the only condition.
    fn value(&self) -> Option<(usize, u64)> {
        match self.conditions.as_slice() {
            [only] if only.op() == Operator::ScmpCmpEq => Some((only.index(), only.value())),
            _ => None,
        }
    }

    /// Rules in one group differ in the low half of a value only.
    fn value_group(&self) -> Option<(usize, u64, u32)> {
        self.value().map(|(index, value)| (index, value >> 32, self.answer))
    }
}

fn rules(profile: &LinuxSeccomp, unknown: &mut Vec<String>) -> Result<Vec<Rule>, SeccompError> {
    let mut rules = Vec::new();
    for entry in profile.syscalls().as_deref().unwrap_or_default() {
        let first = entry.names().first().map_or("", String::as_str);
        let answer = answer(entry.action(), entry.errno_ret(), first)?;
        let conditions = entry.args().as_deref().unwrap_or_default();
        let mut seen = [false; 6];
        let mut repeated = false;
        for condition in conditions {
            let index = condition.index();
            let slot = seen
                .get_mut(index)
                .ok_or_else(|| SeccompError::Argument { syscall: first.to_owned(), index })?;
            repeated |= std::mem::replace(slot, true);
        }
        // Several conditions on one argument are alternatives: runc's reading, which profiles rely on.
        let alternatives: Vec<Vec<LinuxSeccompArg>> = if repeated {
            conditions.iter().map(|condition| vec![*condition]).collect()
        } else {
            vec![conditions.to_vec()]
        };
        let mut calls = Vec::with_capacity(entry.names().len());
        for name in entry.names() {
            match row(name) {
                Some(row) => calls.push(row),
                None if foreign(name) => {}
                None => unknown.push(name.clone()),
            }
        }
        for conditions in alternatives {
            rules.push(Rule { calls: calls.clone(), conditions, answer });
        }
    }
    Ok(rules)
}

/// The kernel's return value for an action.
fn answer(action: Action, errno: Option<u32>, rule: &str) -> Result<u32, SeccompError> {
    let errno = errno.unwrap_or(EPERM);
    let checked = |max: u32| {
        if errno <= max { Ok(errno) } else { Err(SeccompError::Errno { syscall: rule.to_owned(), errno }) }
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | checked(4095)?,
        Action::ScmpActTrace => RET_TRACE | checked(0xffff)?,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
        Action::ScmpActNotify => super::program::RET_NOTIFY,
    })
}

/// What happens to a call.
#[derive(Default)]
struct Outcome<'a> {
    conditional: Vec<&'a Rule>,
    otherwise: Option<u32>,
}

/// A run of numbers that share what happens, up to the next one's start.
struct Range<'a, 'b> {
    start: u32,
    conditional: &'b [&'a Rule],
    otherwise: u32,
}

fn section(arch: Arch, rules: &[Rule], default: u32) -> Vec<Instruction> {
    let mut outcomes: BTreeMap<u32, Outcome<'_>> = BTreeMap::new();
    for rule in rules {
        for number in rule.calls.iter().filter_map(|row| arch.number_of(row)) {
            let outcome = outcomes.entry(number).or_default();
            if rule.conditions.is_empty() {
                outcome.otherwise.get_or_insert(rule.answer);
            } else {
                outcome.conditional.push(rule);
            }
        }
    }
    let plain = |start, otherwise| Range { start, conditional: &[], otherwise };
    let mut ranges = vec![plain(0, default)];
    for (number, outcome) in &outcomes {
        let otherwise = outcome.otherwise.unwrap_or(default);
        add(&mut ranges, Range { start: *number, conditional: &outcome.conditional, otherwise });
        add(&mut ranges, plain(number + 1, default));
    }
    // A profile cannot have meant calls it is older than: a C library copes with ENOSYS, not with EPERM.
    let is_errno = default & 0xffff_0000 == RET_ERRNO;
    if let Some(largest) = outcomes.keys().next_back().filter(|_| is_errno) {
        add(&mut ranges, plain(largest + 1, RET_ERRNO | ENOSYS));
    }

    let mut code = vec![load(OFFSET_NUMBER)];
    if arch == Arch::X86_64 {
        code.push(Instruction { code: AT_LEAST, jump_true: 0, jump_false: 1, operand: X32_BIT });
        code.push(ret(RET_ERRNO | ENOSYS));
    }
    code.extend(search(&ranges));
    code
}

/// Appends a range: it replaces one of the same start and melts into an equal one before it.
fn add<'a, 'b>(ranges: &mut Vec<Range<'a, 'b>>, new: Range<'a, 'b>) {
    ranges.pop_if(|last| last.start == new.start);
    let equal = |last: &Range<'_, '_>| {
        last.conditional.is_empty() && new.conditional.is_empty() && last.otherwise == new.otherwise
    };
    if !ranges.last().is_some_and(equal) {
        ranges.push(new);
    }
}

/// A binary search over ranges; the number of the call is in the accumulator.
fn search(ranges: &[Range<'_, '_>]) -> Vec<Instruction> {
    if let [range] = ranges {
        let mut code: Vec<Instruction> = range
            .conditional
            .chunk_by(|a, b| a.value().is_some() && a.value_group() == b.value_group())
            .flat_map(|rules| if rules.len() > 1 { attempt_values(rules) } else { attempt(rules[0]) })
            .collect();
        code.push(ret(range.otherwise));
        return code;
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let pivot = above.first().map_or(0, |range| range.start);
    let below = search(below);
    let mut code = Vec::with_capacity(2 * below.len() + 2);
    // Conditional jumps reach 255 instructions.
    if let Ok(jump_true) = u8::try_from(below.len()) {
        code.push(Instruction { code: AT_LEAST, jump_true, jump_false: 0, operand: pivot });
    } else {
        code.push(Instruction { code: AT_LEAST, jump_true: 0, jump_false: 1, operand: pivot });
        code.push(jump(&below));
    }
    code.extend(below);
    code.extend(search(above));
    code
}

/// Where a comparison goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    Next,
    /// The condition holds: on to the next one.
    Holds,
    /// It does not: behind the rule.
    Fails,
}

/// Code that answers if all of a rule's conditions hold, and is passed through otherwise.
fn attempt(rule: &Rule) -> Vec<Instruction> {
    let conditions: Vec<_> = rule.conditions.iter().map(condition).collect();
    let total: usize = conditions.iter().map(Vec::len).sum();
    let mut code = Vec::with_capacity(total + 1);
    let mut end = 0;
    for condition in conditions {
        end += condition.len();
        for (code_, operand, holds, fails) in condition {
            let here = code.len() + 1;
            // At most six conditions of at most six instructions: always within reach.
            let distance = |to: To| {
                u8::try_from(match to {
                    To::Next => 0,
                    To::Holds => end - here,
                    To::Fails => total + 1 - here,
                })
                .unwrap_or(u8::MAX)
            };
            code.push(Instruction {
                code: code_,
                jump_true: distance(holds),
                jump_false: distance(fails),
                operand,
            });
        }
    }
    code.push(ret(rule.answer));
    code
}

/// The same for rules of one [`Rule::value_group`]: the halves are loaded once for all of them.
fn attempt_values(rules: &[&Rule]) -> Vec<Instruction> {
    let mut code = Vec::new();
    // Jumps reach 255 instructions.
    for rules in rules.chunks(200) {
        let Some((index, value)) = rules.first().and_then(|rule| rule.value()) else { continue };
        let (high, _) = halves(value);
        let count = rules.len();
        let reach = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        code.push(load(argument_at(index) + 4));
        code.push(Instruction { code: EQUAL, jump_true: 0, jump_false: reach(count + 2), operand: high });
        code.push(load(argument_at(index)));
        for (at, rule) in rules.iter().enumerate() {
            let (_, low) = halves(rule.value().map_or(0, |(_, value)| value));
            let last = at + 1 == count;
            let (jump_true, jump_false) = (reach(count - 1 - at), u8::from(last));
            code.push(Instruction { code: EQUAL, jump_true, jump_false, operand: low });
        }
        code.push(ret(rules.first().map_or(RET_KILL_PROCESS, |rule| rule.answer)));
    }
    code
}

/// Where the low half of an argument is; its index is at most 5 (checked in [`rules`]).
fn argument_at(index: usize) -> u32 {
    OFFSET_ARGUMENTS + 8 * u32::try_from(index).unwrap_or_default()
}

/// High and low half.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}

/// One comparison of a 64-bit argument, high half first.
fn condition(argument: &LinuxSeccompArg) -> Vec<(u16, u32, To, To)> {
    use To::{Fails, Holds, Next};
    let low_at = argument_at(argument.index());
    let (high, low) = halves(argument.value());
    let load_high = (LOAD, low_at + 4, Next, Next);
    let load_low = (LOAD, low_at, Next, Next);
    match argument.op() {
        Operator::ScmpCmpEq => {
            vec![load_high, (EQUAL, high, Next, Fails), load_low, (EQUAL, low, Holds, Fails)]
        }
        Operator::ScmpCmpNe => {
            vec![load_high, (EQUAL, high, Next, Holds), load_low, (EQUAL, low, Fails, Holds)]
        }
        Operator::ScmpCmpGe | Operator::ScmpCmpGt => {
            let last = if argument.op() == Operator::ScmpCmpGe { AT_LEAST } else { GREATER };
            vec![
                load_high,
                (GREATER, high, Holds, Next),
                (EQUAL, high, Next, Fails),
                load_low,
                (last, low, Holds, Fails),
            ]
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let last = if argument.op() == Operator::ScmpCmpLt { AT_LEAST } else { GREATER };
            vec![
                load_high,
                (GREATER, high, Fails, Next),
                (EQUAL, high, Next, Holds),
                load_low,
                (last, low, Fails, Holds),
            ]
        }
        Operator::ScmpCmpMaskedEq => {
            // `value` is the mask, `valueTwo` what must remain.
            let (wanted_high, wanted_low) = halves(argument.value_two().unwrap_or_default());
            vec![
                load_high,
                (AND, high, Next, Next),
                (EQUAL, wanted_high, Next, Fails),
                load_low,
                (AND, low, Next, Next),
                (EQUAL, wanted_low, Holds, Fails),
            ]
        }
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

fn ret(answer: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: answer }
}

/// An unconditional jump over `code`.
fn jump(code: &[Instruction]) -> Instruction {
    // A filter of more than 4096 instructions is refused later: the length fits long before.
    let operand = u32::try_from(code.len()).unwrap_or(u32::MAX);
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand }
}

#[cfg(test)]
mod tests;
