//! `--cpus`: a decimal number of processors, to billionths.

use super::{ParseError, Parsed};

const NANOS_PER_CPU: u64 = 1_000_000_000;

/// `1.5` becomes 1,500,000,000. Decimal arithmetic, so nothing is lost to floating point.
pub(crate) fn parse(text: &str) -> Parsed<u64> {
    let invalid = || ParseError::new(format!("failed to parse {text} as a rational number"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(invalid());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err(ParseError::new("value is too precise"));
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let mut nanos: u64 = 0;
    for position in 0..9 {
        let digit = fraction.as_bytes().get(position).map_or(0, |b| u64::from(b - b'0'));
        nanos = nanos * 10 + digit;
    }
    whole.checked_mul(NANOS_PER_CPU).and_then(|n| n.checked_add(nanos)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parse_is_exact() {
        assert_eq!(parse("1.5"), Ok(1_500_000_000));
        assert_eq!(parse(".1"), Ok(100_000_000));
        assert_eq!(parse("0.123456789"), Ok(123_456_789));
        assert_eq!(parse("2"), Ok(2_000_000_000));
        assert_eq!(parse("0.10000000000"), Ok(100_000_000));
    }

    #[test]
    fn parse_refuses_what_is_no_number() {
        for bad in ["", ".", "-1", "1e3", "a", "0.1234567891", "99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
