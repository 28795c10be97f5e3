//! Wall-clock time as documents show it: RFC 3339 with nanoseconds in UTC, exact both ways.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Nanoseconds since 1970 in UTC; written as `2026-01-02T03:04:05.000000006Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub i64);

const DAY: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;

impl Stamp {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339, with any number of fraction digits and any offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            digits.iter().try_fold(0_i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let shaped = bytes[4] == b'-' && bytes[7] == b'-' && bytes[13] == b':' && bytes[16] == b':';
        if !shaped || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 {
            return None;
        }
        let mut nanos = 0;
        let mut rest = &bytes[19..];
        if rest.first() == Some(&b'.') {
            let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
            for place in 0..9 {
                let digit = rest.get(1 + place).filter(|_| place < digits).map_or(0, |b| i64::from(b - b'0'));
                nanos = nanos * 10 + digit;
            }
            rest = &rest[1 + digits..];
        }
        let offset = match rest {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let digits = [h1, h2, m1, m2];
                if digits.iter().any(|b| !b.is_ascii_digit()) {
                    return None;
                }
                let d = |n: usize| i64::from(digits[n] - b'0');
                let span = (d(0) * 10 + d(1)) * 3600 + (d(2) * 10 + d(3)) * 60;
                if *sign == b'+' { span } else { -span }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
        seconds.checked_mul(NANOS)?.checked_add(nanos).map(Self)
    }
}

/// Days since 1970-01-01 of a Gregorian date; the year is taken to start in March so that the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse: (year, month, day).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(NANOS);
        let nanos = self.0.rem_euclid(NANOS);
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
        let clock = seconds.rem_euclid(DAY);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_767_323_045_000_000_006, "2026-01-02T03:04:05.000000006Z"),
        ] {
            assert_eq!(Stamp(nanos).to_string(), text);
            assert_eq!(Stamp::parse(text), Some(Stamp(nanos)));
        }
        assert_eq!(Stamp::parse("1970-01-01T01:00:00.5+01:00"), Some(Stamp(500_000_000)));
        for bad in ["", "1970", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00+0100"] {
            assert_eq!(Stamp::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_stamp_survives_its_text(nanos in 0_i64..4_102_444_800_000_000_000) {
            prop_assert_eq!(Stamp::parse(&Stamp(nanos).to_string()), Some(Stamp(nanos)));
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,40}") {
            let _ = Stamp::parse(&text);
        }
    }
}
