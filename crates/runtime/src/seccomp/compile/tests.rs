//! The compiled filters against an interpreter of classic BPF and a direct reading of the rules.

use cata_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscall};
use proptest::prelude::*;

use super::*;
use crate::seccomp::docker_default;

/// What a filter sees of a call.
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) {
                    (argument & 0xffff_ffff) as u32
                } else {
                    (argument >> 32) as u32
                }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a filter as the kernel does.
fn run(program: &Program, call: &Call) -> u32 {
    let mut accumulator = 0_u32;
    let mut at = 0_usize;
    loop {
        let i = program.code[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => accumulator = call.word(i.operand),
            AND => accumulator &= i.operand,
            JUMP => at += i.operand as usize,
            EQUAL => branch(accumulator == i.operand),
            GREATER => branch(accumulator > i.operand),
            AT_LEAST => branch(accumulator >= i.operand),
            RETURN => return i.operand,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// What the rules say, read one after the other.
fn direct(profile: &LinuxSeccomp, arch: Arch, number: u32, arguments: [u64; 6]) -> u32 {
    let code = |action: Action, errno: Option<u32>| answer(action, errno, "").unwrap();
    let rules: Vec<_> = profile.syscalls().iter().flatten().collect();
    let mine = |rule: &&&LinuxSyscall| rule.names().iter().any(|name| arch.number(name) == Some(number));
    let holds = |arg: &LinuxSeccompArg| {
        let have = arguments[arg.index()];
        match arg.op() {
            Operator::ScmpCmpEq => have == arg.value(),
            Operator::ScmpCmpNe => have != arg.value(),
            Operator::ScmpCmpGe => have >= arg.value(),
            Operator::ScmpCmpGt => have > arg.value(),
            Operator::ScmpCmpLe => have <= arg.value(),
            Operator::ScmpCmpLt => have < arg.value(),
            Operator::ScmpCmpMaskedEq => have & arg.value() == arg.value_two().unwrap_or(0),
        }
    };
    for rule in rules.iter().filter(mine) {
        let args = rule.args().as_deref().unwrap_or_default();
        let mut indices: Vec<_> = args.iter().map(LinuxSeccompArg::index).collect();
        indices.sort_unstable();
        indices.dedup();
        let alternatives = indices.len() < args.len();
        if !args.is_empty() && (if alternatives { args.iter().any(holds) } else { args.iter().all(holds) }) {
            return code(rule.action(), rule.errno_ret());
        }
    }
    for rule in rules.iter().filter(mine) {
        if rule.args().as_deref().unwrap_or_default().is_empty() {
            return code(rule.action(), rule.errno_ret());
        }
    }
    let largest = rules.iter().flat_map(|rule| rule.names()).filter_map(|name| arch.number(name)).max();
    if profile.default_action() == Action::ScmpActErrno && largest.is_some_and(|largest| number > largest) {
        return RET_ERRNO | ENOSYS;
    }
    code(profile.default_action(), profile.default_errno_ret())
}

fn profile(default: Action, rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccompBuilder::default().build().unwrap();
    profile.set_default_action(default);
    profile.set_architectures(Some(vec![OciArch::ScmpArchX86]));
    profile.set_syscalls(Some(rules));
    profile
}

/// Values around which comparisons of halves go wrong.
fn interesting() -> impl Strategy<Value = u64> {
    let half = prop::sample::select(vec![0_u64, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]);
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![
        Action::ScmpActAllow,
        Action::ScmpActErrno,
        Action::ScmpActKill,
        Action::ScmpActKillProcess,
        Action::ScmpActLog,
        Action::ScmpActTrace,
        Action::ScmpActTrap,
    ])
}

const NAMES: [&str; 9] =
    ["read", "write", "open", "close", "socket", "personality", "clone", "futex_waitv", "mseal"];

fn rule() -> impl Strategy<Value = LinuxSyscall> {
    let operator = prop::sample::select(vec![
        Operator::ScmpCmpEq,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpNe,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpMaskedEq,
    ]);
    let argument =
        (0_usize..3, operator, interesting(), interesting()).prop_map(|(index, op, value, two)| {
            let argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
            argument.value_two(two & value).build().unwrap()
        });
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4);
    let args = prop::collection::vec(argument, 0..4);
    (names, action(), prop::option::of(0_u32..200), args).prop_map(|(names, action, errno, args)| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.into_iter().map(str::to_owned).collect()).set_action(action);
        rule.set_errno_ret(errno).set_args((!args.is_empty()).then_some(args));
        rule
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn filter_does_what_the_rules_say(
        default in action(),
        rules in prop::collection::vec(rule(), 0..12),
        calls in prop::collection::vec(
            (0_u32..470, prop::sample::select(NAMES.to_vec()), any::<bool>(), any::<bool>(),
             [interesting(), interesting(), interesting()]), 40),
    ) {
        let profile = profile(default, rules);
        let compiled = compile_for(&profile, Arch::X86_64).unwrap();
        for (number, name, by_name, small, [a, b, c]) in calls {
            let arch = if small { Arch::X86 } else { Arch::X86_64 };
            let number = arch.number(name).filter(|_| by_name).unwrap_or(number);
            let arguments = [a, b, c, 0, 0, 0];
            let call = Call { number, arch: arch.audit(), arguments };
            prop_assert_eq!(
                run(&compiled.program, &call), direct(&profile, arch, number, arguments), "{:?}", call
            );
        }
    }
}

fn call(name: &str, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let arch = Arch::X86_64;
    Call { number: arch.number(name).unwrap(), arch: arch.audit(), arguments: all }
}

#[test]
fn docker_default_for_every_call_agrees_with_its_table() {
    for caps in [&[][..], &["CAP_SYS_ADMIN", "CAP_BPF"][..]] {
        for native in [Arch::X86_64, Arch::Aarch64] {
            let profile = docker_default(caps, native);
            let compiled = compile_for(&profile, native).unwrap();
            assert_eq!(compiled.unknown, Vec::<String>::new());
            assert!(compiled.program.code.len() < 550, "{}", compiled.program.code.len());
            let archs = if native == Arch::X86_64 { vec![native, Arch::X86] } else { vec![native] };
            for arch in archs {
                for number in 0..500 {
                    let conditional = ["socket", "personality", "clone"];
                    let looked_at = conditional.iter().any(|name| arch.number(name) == Some(number));
                    let arguments = [0, 1, 12, 13, 40, 0x8, 0x2_0000, 0x1000_0000, 0xffff_ffff];
                    for argument in &arguments[..if looked_at { 9 } else { 1 }] {
                        let arguments = [*argument, 0, 0, 0, 0, 0];
                        let call = Call { number, arch: arch.audit(), arguments };
                        assert_eq!(
                            run(&compiled.program, &call),
                            direct(&profile, arch, number, arguments),
                            "{call:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn docker_default_facts() {
    let refused = RET_ERRNO | EPERM;
    let plain = compile_for(&docker_default(&["CAP_CHOWN"], Arch::X86_64), Arch::X86_64).unwrap().program;
    let admin = compile_for(&docker_default(&["CAP_SYS_ADMIN"], Arch::X86_64), Arch::X86_64).unwrap().program;
    for (name, arguments, plainly, as_admin) in [
        ("read", &[][..], RET_ALLOW, RET_ALLOW),
        ("mount", &[], refused, RET_ALLOW),
        ("keyctl", &[], refused, refused),
        ("io_uring_setup", &[], refused, refused),
        ("clone3", &[], RET_ERRNO | ENOSYS, RET_ALLOW),
        ("clone", &[0x1_0000], RET_ALLOW, RET_ALLOW),
        ("clone", &[0x1000_0011], refused, RET_ALLOW),
        ("socket", &[2], RET_ALLOW, RET_ALLOW),
        ("socket", &[16], RET_ALLOW, RET_ALLOW),
        ("socket", &[40], refused, refused),
        ("socket", &[1 << 32 | 2], refused, refused),
        ("personality", &[0xffff_ffff], RET_ALLOW, RET_ALLOW),
        ("personality", &[0x40_0000], refused, refused),
        ("settimeofday", &[], refused, refused),
        ("ptrace", &[], RET_ALLOW, RET_ALLOW),
    ] {
        assert_eq!(run(&plain, &call(name, arguments)), plainly, "{name}{arguments:?}");
        assert_eq!(run(&admin, &call(name, arguments)), as_admin, "{name}{arguments:?} as admin");
    }
    let mut x32 = call("read", &[]);
    x32.number |= X32_BIT;
    assert_eq!(run(&plain, &x32), RET_ERRNO | ENOSYS);
    let foreign = Call { arch: 0x4000_0028, ..call("read", &[]) };
    assert_eq!(run(&plain, &foreign), RET_KILL_PROCESS);
    assert_eq!(run(&plain, &Call { number: 4000, ..call("read", &[]) }), RET_ERRNO | ENOSYS);
}

#[test]
fn bad_rules_are_refused_by_name() {
    let with = |change: fn(&mut LinuxSyscall)| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(vec!["read".to_owned()]).set_action(Action::ScmpActErrno);
        change(&mut rule);
        compile_for(&profile(Action::ScmpActAllow, vec![rule]), Arch::X86_64)
    };
    let message = |change| with(change).unwrap_err().to_string();
    assert!(
        message(|rule| {
            rule.set_errno_ret(Some(5000));
        })
        .contains("5000")
    );
    let far = |rule: &mut LinuxSyscall| {
        rule.set_args(Some(vec![LinuxSeccompArgBuilder::default().index(6_usize).build().unwrap()]));
    };
    assert!(message(far).contains("argument 6"));
    let unknown = with(|rule| {
        rule.set_names(vec!["raed".to_owned(), "chown32".to_owned()]);
    })
    .unwrap();
    assert_eq!(unknown.unknown, ["raed"]);
}
