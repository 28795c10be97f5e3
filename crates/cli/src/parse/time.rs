//! Moments: `--since` and `--until` take a date, seconds since the epoch, or a duration back from now.

use jiff::{Timestamp, civil, tz::TimeZone};

use super::{ParseError, Parsed, duration};

/// Nanoseconds since the epoch. `now` (also nanoseconds) is what a duration counts back from, `zone` is
/// where a date without an offset is.
pub(crate) fn parse(text: &str, now: u64, zone: &TimeZone) -> Parsed<u64> {
    let invalid = || ParseError::new(format!("invalid value for a time: \"{text}\""));
    if let Some(nanos) = epoch_seconds(text) {
        return Ok(nanos);
    }
    if let Ok(back) = duration::nanos(text) {
        return Ok(now.saturating_sub(back));
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return nanos(moment).ok_or_else(invalid);
    }
    let date_time: civil::DateTime = text.parse().map_err(|_| invalid())?;
    let moment = date_time.to_zoned(zone.clone()).map_err(|_| invalid())?.timestamp();
    nanos(moment).ok_or_else(invalid)
}

fn nanos(moment: Timestamp) -> Option<u64> {
    u64::try_from(moment.as_nanosecond()).ok()
}

/// `1700000000` and `1700000000.25`.
fn epoch_seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::parse;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn parse_reads_all_of_dockers_forms() {
        let read = |text| parse(text, 100 * SECOND, &TimeZone::UTC);
        assert_eq!(read("10s"), Ok(90 * SECOND));
        assert_eq!(read("42"), Ok(42 * SECOND));
        assert_eq!(read("42.5"), Ok(42 * SECOND + SECOND / 2));
        assert_eq!(read("1970-01-01T00:01:00Z"), Ok(60 * SECOND));
        assert_eq!(read("1970-01-01T01:01:00+01:00"), Ok(60 * SECOND));
        assert_eq!(read("1970-01-01T00:01:00"), Ok(60 * SECOND));
        assert_eq!(read("1970-01-02"), Ok(86_400 * SECOND));
        assert!(read("yesterday").is_err());
    }
}
