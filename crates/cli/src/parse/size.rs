//! Sizes: `512m` (powers of 1024, as memory is counted) and `10m` (powers of 1000, as log files are).

use super::{ParseError, Parsed};

/// Bytes in powers of 1024: `--memory`, `--shm-size`, tmpfs sizes.
pub(crate) fn binary(text: &str) -> Parsed<u64> {
    scaled(text, 1024)
}

/// Bytes in powers of 1000: `--log-opt max-size`.
pub(crate) fn decimal(text: &str) -> Parsed<u64> {
    scaled(text, 1000)
}

/// As [`binary`], but `-1` is unlimited: `--memory-swap`.
pub(crate) fn binary_or_unlimited(text: &str) -> Parsed<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = binary(text)?;
    i64::try_from(bytes).map_err(|_| ParseError::new(format!("size '{text}' is too large")))
}

fn scaled(text: &str, base: u64) -> Parsed<u64> {
    let invalid = || ParseError::new(format!("invalid size: '{text}'"));
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let suffix = suffix.trim_start_matches(' ').to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let unit = base.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(|| ParseError::new(format!("size '{text}' is too large")));
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    #[expect(clippy::cast_precision_loss, reason = "a unit is a power of two or ten, exact below 2^53")]
    let bytes = number * unit as f64;
    if !bytes.is_finite() || bytes >= 9.0e18 {
        return Err(ParseError::new(format!("size '{text}' is too large")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above, never negative"
    )]
    let bytes = bytes as u64;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{binary, binary_or_unlimited, decimal};

    #[test]
    fn binary_reads_dockers_spellings() {
        assert_eq!(binary("512m"), Ok(512 << 20));
        assert_eq!(binary("1.5g"), Ok(1_610_612_736));
        assert_eq!(binary("1GiB"), Ok(1 << 30));
        assert_eq!(binary("64 kB"), Ok(64 << 10));
        assert_eq!(binary("42"), Ok(42));
        assert_eq!(binary("7b"), Ok(7));
    }

    #[test]
    fn decimal_counts_in_thousands() {
        assert_eq!(decimal("10m"), Ok(10_000_000));
    }

    #[test]
    fn unlimited_is_minus_one_only() {
        assert_eq!(binary_or_unlimited("-1"), Ok(-1));
        assert!(binary_or_unlimited("-2").is_err());
    }

    #[test]
    fn binary_refuses_nonsense_by_name() {
        assert_eq!(binary("x1").unwrap_err().to_string(), "invalid size: 'x1'");
        for bad in ["", "m", "1.2.3", "-5", "5x", "99999999999g", "1mm"] {
            assert!(binary(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn binary_never_panics(text in ".{0,20}") {
            let _ = binary(&text);
        }

        #[test]
        fn whole_megabytes_are_exact(n in 0u64..1 << 40) {
            prop_assert_eq!(binary(&format!("{n}m")), Ok(n << 20));
        }
    }
}
