//! Durations as Go writes them: `1m30s`, `1.5h`, `300ms`.

use std::time::Duration;

use super::{ParseError, Parsed};

/// What `time.ParseDuration` reads, without negative values.
pub(crate) fn parse(text: &str) -> Parsed<Duration> {
    let invalid = || ParseError::new(format!("time: invalid duration \"{text}\""));
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        if number.is_empty() || number == "." {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit_nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(ParseError::new(format!("time: missing unit in duration \"{text}\""))),
            _ => {
                return Err(ParseError::new(format!("time: unknown unit \"{unit}\" in duration \"{text}\"")));
            }
        };
        nanos = times(number, unit_nanos).and_then(|n| nanos.checked_add(n)).ok_or_else(invalid)?;
        rest = tail;
    }
    // Go's durations are signed 64-bit nanoseconds.
    let nanos = i64::try_from(nanos).map_err(|_| invalid())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// A decimal number times a unit, rounded down.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        total = total.checked_add(u128::from(digit - b'0') * scale)?;
    }
    Some(total)
}

/// Nanoseconds of [`parse`], which requests carry.
pub(crate) fn nanos(text: &str) -> Parsed<u64> {
    let duration = parse(text)?;
    u64::try_from(duration.as_nanos())
        .map_err(|_| ParseError::new(format!("time: invalid duration \"{text}\"")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::parse;

    #[test]
    fn parse_reads_gos_forms() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse(".5s"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn parse_says_what_is_wrong() {
        assert_eq!(parse("5").unwrap_err().to_string(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5d").unwrap_err().to_string(), "time: unknown unit \"d\" in duration \"5d\"");
        assert_eq!(parse("x").unwrap_err().to_string(), "time: invalid duration \"x\"");
        assert!(parse("-1s").is_err());
        assert!(parse("1.2.3s").is_err());
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in ".{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn milliseconds_round_trip(ms in 0u64..1 << 40) {
            prop_assert_eq!(parse(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
        }
    }
}
