//! Limits as properties of a unit, and properties written in annotations.

use cata_spec::runtime::LinuxResources;

use super::super::devices::DevicePolicy;
use super::super::limits;
use super::{Property, Value};
use crate::cgroup::CgroupError;

/// No limit, as systemd writes it.
const INFINITY: u64 = u64::MAX;

/// systemd keeps CPU time in hundredths of a CPU, so many microseconds a second; what is less is made more.
const PERCENT: u64 = 10_000;

/// The limits that systemd has a word for. What it has none for is written into the cgroup all the same.
pub(super) fn of(resources: &LinuxResources, v2: bool) -> Result<Vec<Property>, CgroupError> {
    let mut all = Vec::new();
    let mut add = |name: &str, value: Value| all.push(Property { name: name.to_owned(), value });
    if let Some(memory) = resources.memory() {
        let limit = limits::given(memory.limit());
        if let Some(limit) = limit {
            add(if v2 { "MemoryMax" } else { "MemoryLimit" }, Value::Number(bytes(limit)));
        }
        if let Some(swap) = limits::given(memory.swap()).filter(|_| v2) {
            // As for the kernel: swap alone.
            let alone = if swap < 0 { swap } else { swap.saturating_sub(limit.unwrap_or(0)) };
            add("MemorySwapMax", Value::Number(bytes(alone)));
        }
        if let Some(low) = limits::given(memory.reservation()).filter(|_| v2) {
            add("MemoryLow", Value::Number(bytes(low)));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = limits::given(cpu.shares()) {
            match v2 {
                true => add("CPUWeight", Value::Number(limits::weight_from_shares(shares))),
                false => add("CPUShares", Value::Number(shares)),
            }
        }
        let (quota, period) = (limits::given(cpu.quota()), limits::given(cpu.period()));
        if let Some(period) = period {
            add("CPUQuotaPeriodUSec", Value::Number(period));
        }
        if let Some(quota) = quota {
            let period = period.unwrap_or(100_000).max(1);
            let second = u64::try_from(quota).map_or(INFINITY, |quota| {
                (quota.saturating_mul(1_000_000) / period).next_multiple_of(PERCENT)
            });
            add("CPUQuotaPerSecUSec", Value::Number(second));
        }
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_deref().filter(|list| v2 && !list.is_empty()) {
                add(name, Value::Bytes(bits(list)?));
            }
        }
    }
    if let Some(limit) = resources.pids().and_then(limits::process_limit) {
        add("TasksMax", Value::Number(bytes(limit)));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(|io| limits::given(io.weight())) {
        let weight = limits::check_weight(weight)?;
        match v2 {
            true => add("IOWeight", Value::Number(limits::io_weight(weight).into())),
            false => add("BlockIOWeight", Value::Number(weight.into())),
        }
    }
    if v2 {
        let mut keys: Vec<_> = resources.unified().iter().flatten().collect();
        keys.sort_unstable();
        for (key, value) in keys {
            for property in unified(key, value)? {
                all.retain(|other: &Property| other.name != property.name);
                all.push(property);
            }
        }
    }
    let policy = DevicePolicy::new(resources.devices().as_deref().unwrap_or_default())?;
    if !policy.is_unrestricted() && policy.is_closed() {
        let text = Value::Text("strict".to_owned());
        all.push(Property { name: "DevicePolicy".to_owned(), value: text });
        all.push(Property { name: "DeviceAllow".to_owned(), value: Value::Pairs(policy.nodes()) });
    }
    Ok(all)
}

/// A negative limit is none.
fn bytes(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

fn invalid(limit: &'static str, value: &str, why: &'static str) -> CgroupError {
    CgroupError::Value { limit, value: value.to_owned(), why }
}

/// `0-3,7` as bits.
fn bits(list: &str) -> Result<Vec<u8>, CgroupError> {
    let wrong = || invalid("CPU or memory node set", list, "a list looks like 0-3,7");
    let mut bits: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return Err(wrong()) };
        if first > last || last >= 8192 {
            return Err(wrong());
        }
        for number in first..=last {
            let byte = usize::from(number / 8);
            bits.resize(bits.len().max(byte + 1), 0);
            bits[byte] |= 1 << (number % 8);
        }
    }
    Ok(bits)
}

/// What of version 2's own words systemd has a word for.
fn unified(key: &str, value: &str) -> Result<Vec<Property>, CgroupError> {
    let wrong = || invalid("unified setting", value, "it is not a number or `max`");
    let number = |text: &str| match text.trim() {
        "max" => Ok(INFINITY),
        text => text.parse::<u64>().map_err(|_| wrong()),
    };
    let one = |name: &str, value: Value| Ok(vec![Property { name: name.to_owned(), value }]);
    let name = match key {
        "cpuset.cpus" => return one("AllowedCPUs", Value::Bytes(bits(value)?)),
        "cpuset.mems" => return one("AllowedMemoryNodes", Value::Bytes(bits(value)?)),
        "cpu.max" => {
            let (quota, period) = value.trim().split_once(' ').unwrap_or((value.trim(), "100000"));
            let (quota, period) = (number(quota)?, number(period)?.max(1));
            let second = match quota {
                INFINITY => INFINITY,
                quota => (quota.saturating_mul(1_000_000) / period).next_multiple_of(PERCENT),
            };
            let of = |name: &str, value| Property { name: name.to_owned(), value: Value::Number(value) };
            return Ok(vec![of("CPUQuotaPeriodUSec", period), of("CPUQuotaPerSecUSec", second)]);
        }
        "cpu.weight" => "CPUWeight",
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return Ok(Vec::new()),
    };
    one(name, Value::Number(number(value)?))
}

/// A property as annotations have it, in the words of `GVariant`: `true`, `'text'`, `uint64 5`, `['a', 'b']`.
pub(super) fn annotated(name: &str, text: &str) -> Result<Property, CgroupError> {
    let wrong = || CgroupError::Property { name: name.to_owned(), value: text.to_owned() };
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric());
    if name.is_empty() || !plain {
        return Err(wrong());
    }
    let value = value(text.trim()).ok_or_else(wrong)?;
    // `…Sec` is what people write; the property of the same meaning counts microseconds.
    let seconds = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'));
    Ok(match (seconds, value) {
        (Some(stem), Value::Number(seconds)) => Property {
            name: format!("{stem}USec"),
            value: Value::Number(seconds.checked_mul(1_000_000).ok_or_else(wrong)?),
        },
        (Some(stem), Value::Signed(seconds)) => Property {
            name: format!("{stem}USec"),
            value: Value::Number(u64::try_from(seconds).map_err(|_| wrong())?.saturating_mul(1_000_000)),
        },
        (_, value) => Property { name: name.to_owned(), value },
    })
}

fn value(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = text.strip_prefix("uint64 ") {
        return number.trim().parse().ok().map(Value::Number);
    }
    if let Ok(number) = text.strip_prefix("int32 ").unwrap_or(text).trim().parse() {
        return Some(Value::Signed(number));
    }
    let list = text.strip_prefix("@as ").unwrap_or(text).trim();
    if let Some(inside) = list.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let mut texts = Vec::new();
        let mut rest = inside.trim();
        while !rest.is_empty() {
            let (one, more) = quoted(rest)?;
            texts.push(one);
            rest = more.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        return Some(Value::Texts(texts));
    }
    let (one, rest) = quoted(text)?;
    rest.is_empty().then_some(Value::Text(one))
}

/// A text in quotes, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut plain = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => plain.push(characters.next()?.1),
            c if c == quote => return Some((plain, &text[at + c.len_utf8()..])),
            c => plain.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn properties(resources: serde_json::Value, v2: bool) -> Vec<(String, Value)> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        of(&resources, v2).unwrap().into_iter().map(|p| (p.name, p.value)).collect()
    }

    #[test]
    fn limits_are_properties_of_either_version() {
        let resources = json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 10},
            "cpu": {"shares": 1024, "quota": 12345, "period": 100_000, "cpus": "0-1,9"},
            "pids": {"limit": -1}, "blockIO": {"weight": 10},
            "devices": [{"allow": true}],
        });
        let number = |name: &str, value| (name.to_owned(), Value::Number(value));
        assert_eq!(
            properties(resources.clone(), true),
            [
                number("MemoryMax", 1000),
                number("MemorySwapMax", 500),
                number("MemoryLow", 10),
                number("CPUWeight", 100),
                number("CPUQuotaPeriodUSec", 100_000),
                number("CPUQuotaPerSecUSec", 130_000),
                ("AllowedCPUs".to_owned(), Value::Bytes(vec![0b11, 0b10])),
                number("TasksMax", u64::MAX),
                number("IOWeight", 1),
            ]
        );
        let v1: Vec<String> = properties(resources, false).into_iter().map(|(name, _)| name).collect();
        let expected = [
            "MemoryLimit",
            "CPUShares",
            "CPUQuotaPeriodUSec",
            "CPUQuotaPerSecUSec",
            "TasksMax",
            "BlockIOWeight",
        ];
        assert_eq!(v1, expected);
    }

    #[test]
    fn unified_settings_win() {
        let open = json!([{"allow": true}]);
        let resources = json!({
            "memory": {"limit": 1000}, "devices": open,
            "unified": {"memory.max": "2000", "cpu.max": "50000 100000", "pids.max": "max", "misc.max": "x 1"},
        });
        let number = |name: &str, value| (name.to_owned(), Value::Number(value));
        assert_eq!(
            properties(resources, true),
            [
                number("CPUQuotaPeriodUSec", 100_000),
                number("CPUQuotaPerSecUSec", 500_000),
                number("MemoryMax", 2000),
                number("TasksMax", u64::MAX),
            ]
        );
    }

    #[test]
    fn devices_are_a_list_of_what_is_allowed() {
        let rules = json!([
            {"allow": false}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        ]);
        let all = properties(json!({"devices": rules}), true);
        assert_eq!(all[0], ("DevicePolicy".to_owned(), Value::Text("strict".to_owned())));
        let Value::Pairs(pairs) = &all[1].1 else { panic!("{all:?}") };
        let has = |node: &str, access: &str| pairs.contains(&(node.to_owned(), access.to_owned()));
        assert!(
            has("/dev/char/10:229", "rw") && has("/dev/char/1:3", "rwm") && has("char-*", "m"),
            "{pairs:?}"
        );
    }

    #[test]
    fn annotations_are_values() {
        let of = |name: &str, text: &str| annotated(name, text).map(|p| (p.name, p.value));
        let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(of("A", "'it\\'s'").unwrap().1, Value::Text("it's".to_owned()));
        assert_eq!(of("A", "['a', \"b\"]").unwrap().1, texts(&["a", "b"]));
        assert_eq!(of("A", "@as []").unwrap().1, texts(&[]));
        assert_eq!(of("A", "-5").unwrap().1, Value::Signed(-5));
        assert_eq!(of("StopSec", "uint64 2").unwrap(), ("StopUSec".to_owned(), Value::Number(2_000_000)));
        for wrong in ["", "x", "'a", "['a' 'b']", "uint64 -1", "'a' b"] {
            assert!(of("A", wrong).is_err(), "{wrong}");
        }
        assert!(of("a b", "true").is_err());
    }

    proptest! {
        #[test]
        fn foreign_annotations_never_panic(text in ".*") {
            let _ = annotated("Name", &text);
            let _ = bits(&text);
            let _ = unified("cpu.max", &text);
        }
    }
}
