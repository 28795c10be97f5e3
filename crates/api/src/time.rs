//! Moments as clients write them.

use cata_engine::Stamp;

const SECOND: i64 = 1_000_000_000;

/// PURE but for now: seconds since 1970 with a fraction, RFC 3339, or a span back from now (`10m`); in nanoseconds.
pub(crate) fn moment(text: &str) -> Option<i64> {
    if let Some(nanos) = seconds(text) {
        return Some(nanos);
    }
    if let Some(stamp) = Stamp::parse(text) {
        return Some(stamp.unix_nanos());
    }
    span_back(text).map(|back| Stamp::now().unix_nanos().saturating_sub(back))
}

fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(SECOND)?.checked_add(fraction)
}

/// `1h30m`, `500ms`.
fn span_back(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => SECOND / 1000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form() {
        assert_eq!(moment("42"), Some(42 * SECOND));
        assert_eq!(moment("42.5"), Some(42 * SECOND + SECOND / 2));
        assert_eq!(moment("1970-01-01T00:01:00Z"), Some(60 * SECOND));
        assert_eq!(span_back("1h30m"), Some(5400 * SECOND));
        for bad in ["", "h", "5x", "soon"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
