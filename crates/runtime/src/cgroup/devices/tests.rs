//! The program against an interpreter and a direct reading of the rules.

use cata_spec::runtime::LinuxDeviceCgroupBuilder;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
struct Asked {
    kind: Kind,
    major: i32,
    minor: i32,
    access: u8,
}

/// Runs a program as the kernel does, for the few instructions it is made of.
fn run(program: &DeviceProgram, asked: Asked) -> bool {
    let kind = if asked.kind == Kind::Block { 1 } else { 2 };
    let context = [u64::from(asked.access) << 16 | kind, asked.major as u64, asked.minor as u64];
    let mut registers = [0_u64; 11];
    let mut at = 0_i64;
    loop {
        let code = program.0[usize::try_from(at).unwrap()];
        at += 1;
        let (to, from) = ((code >> 8 & 15) as usize, (code >> 12 & 15) as usize);
        let offset = i64::from((code >> 16) as u16 as i16);
        let immediate = i64::from((code >> 32) as u32 as i32) as u64;
        match code as u8 {
            LOAD_WORD => registers[to] = context[usize::try_from(offset).unwrap() / 4],
            MOVE => registers[to] = immediate,
            MOVE_REGISTER => registers[to] = registers[from],
            AND => registers[to] &= immediate,
            AND32 => registers[to] = u64::from(registers[to] as u32 & immediate as u32),
            SHIFT_RIGHT32 => registers[to] = u64::from(registers[to] as u32 >> immediate),
            JUMP_EQUAL => at += if registers[to] == immediate { offset } else { 0 },
            JUMP_NOT_EQUAL => at += if registers[to] == immediate { 0 } else { offset },
            EXIT => return registers[0] != 0,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// Each kind of access is decided by the last rule that fits.
fn direct(list: &[LinuxDeviceCgroup], asked: Asked) -> bool {
    let mut rules: Vec<Rule> = list.iter().map(|item| Rule::new(item).unwrap()).collect();
    // The defaults are allowed whatever the list says.
    rules.extend(DEFAULTS.iter().map(|&(kind, major, minor, access)| Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    }));
    [MKNOD, READ, WRITE].into_iter().filter(|bit| asked.access & bit != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|rule| {
                rule.kind.is_none_or(|kind| kind == asked.kind)
                    && rule.major.is_none_or(|major| major == asked.major)
                    && rule.minor.is_none_or(|minor| minor == asked.minor)
                    && rule.access & bit != 0
            })
            .is_some_and(|rule| rule.allow)
    })
}

fn item(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "p" => LinuxDeviceType::P,
        _ => LinuxDeviceType::C,
    };
    let mut item = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        item = item.major(major);
    }
    if let Some(minor) = minor {
        item = item.minor(minor);
    }
    item.build().unwrap()
}

fn any_item() -> impl Strategy<Value = LinuxDeviceCgroup> {
    let kind = prop::sample::select(vec!["a", "b", "c", "c"]);
    let access = prop::sample::select(vec!["rwm", "rw", "r", "m", "wm", ""]);
    (any::<bool>(), kind, prop::option::of(0_i64..4), prop::option::of(0_i64..4), access)
        .prop_map(|(allow, kind, major, minor, access)| item(allow, kind, major, minor, access))
}

proptest! {
    #[test]
    fn program_does_what_the_rules_say(
        list in prop::collection::vec(any_item(), 0..8),
        calls in prop::collection::vec((any::<bool>(), 0..5_i32, 0..9_i32, 1..8_u8), 30),
    ) {
        let policy = DevicePolicy::new(&list).unwrap();
        let program = policy.program();
        for (block, major, minor, access) in calls {
            let kind = if block { Kind::Block } else { Kind::Char };
            let asked = Asked { kind, major, minor, access };
            prop_assert_eq!(run(&program, asked), direct(&list, asked), "{:?} {:?}", asked, policy);
            prop_assert!(!policy.is_unrestricted() || direct(&list, asked));
        }
    }
}

#[test]
fn dockers_list() {
    let list = [item(false, "a", None, None, "rwm"), item(true, "c", Some(10), Some(229), "rw")];
    let policy = DevicePolicy::new(&list).unwrap();
    let lines: Vec<String> = policy.lines().iter().map(|(file, line)| format!("{file} {line}")).collect();
    assert_eq!(lines[..3], ["devices.deny a", "devices.allow c 10:229 rw", "devices.allow c *:* m"]);
    assert_eq!(lines.len(), 2 + DEFAULTS.len());
    let privileged = DevicePolicy::new(&[item(true, "a", None, None, "rwm")]).unwrap();
    assert!(privileged.is_unrestricted());
    assert_eq!(privileged.lines(), [("devices.allow", "a".to_owned())]);
    assert!(!DevicePolicy::new(&[]).unwrap().is_unrestricted());
}

#[test]
fn nonsense_is_named() {
    let error = |item| DevicePolicy::new(&[item]).unwrap_err().to_string();
    assert!(error(item(true, "p", None, None, "r")).contains("FIFO"));
    assert!(error(item(true, "c", Some(1 << 40), None, "r")).contains("1099511627776"));
    assert!(error(item(true, "c", None, None, "rx")).contains("`rx`"));
}

#[test]
fn program_survives_json() {
    let program = DevicePolicy::new(&[]).unwrap().program();
    let text = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<DeviceProgram>(&text).unwrap(), program);
    assert!(serde_json::from_str::<DeviceProgram>("\"123\"").is_err());
}
