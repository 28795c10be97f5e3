//! Times for people: `3 minutes ago`, `Up 5 seconds`, and the long forms of `--format`.

pub(crate) use cata_engine::span::span;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// As [`rfc3339`], where `zone` is.
pub(crate) fn zoned(nanos: u64, zone: &TimeZone) -> String {
    let moment = timestamp(nanos).to_zoned(zone.clone());
    let offset = if moment.offset().is_zero() { "Z" } else { "%:z" };
    moment.strftime(&format!("%Y-%m-%dT%H:%M:%S.%9f{offset}")).to_string()
}

/// Nanoseconds since the epoch, now.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
}

/// How long ago `then` was, `now` and `then` in nanoseconds since the epoch.
pub(crate) fn ago(then: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

/// RFC 3339 in UTC with nanoseconds, as `inspect` and `logs -t` show it.
pub(crate) fn rfc3339(nanos: u64) -> String {
    format!("{:.9}", timestamp(nanos))
}

/// Go's `2006-01-02 15:04:05 -0700 MST`, as `{{.CreatedAt}}` shows it.
pub(crate) fn long(nanos: u64, zone: &TimeZone) -> String {
    timestamp(nanos).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// RFC 3339 to the second, in `zone`.
pub(crate) fn short(nanos: u64, zone: &TimeZone) -> String {
    timestamp(nanos).to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// `15:04` for today, `Jan02` for this year, `2006` before: the STIME column of `ps`.
pub(crate) fn start_column(seconds: u64, now: u64, zone: &TimeZone) -> String {
    let then = timestamp(seconds.saturating_mul(NANOS_PER_SECOND)).to_zoned(zone.clone());
    let today = timestamp(now).to_zoned(zone.clone());
    if then.date() == today.date() {
        then.strftime("%H:%M").to_string()
    } else if then.year() == today.year() {
        then.strftime("%b%d").to_string()
    } else {
        then.strftime("%Y").to_string()
    }
}

fn timestamp(nanos: u64) -> Timestamp {
    // Beyond the year 9999 there is no date; nothing we write is.
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{long, rfc3339, short, span, start_column};

    #[test]
    fn span_uses_dockers_words() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (minute, "About a minute"),
            (2 * minute, "2 minutes"),
            (46 * minute, "46 minutes"),
            (hour, "About an hour"),
            (2 * hour, "2 hours"),
            (47 * hour, "47 hours"),
            (2 * day, "2 days"),
            (14 * day, "2 weeks"),
            (60 * day, "2 months"),
            (730 * day, "2 years"),
        ];
        for (seconds, words) in cases {
            assert_eq!(span(seconds * 1_000_000_000), words, "{seconds}");
        }
    }

    #[test]
    fn dates_have_gos_layouts() {
        let nanos = 1_700_000_000_123_456_789;
        assert_eq!(rfc3339(nanos), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(long(nanos, &TimeZone::UTC), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(short(nanos, &TimeZone::UTC), "2023-11-14T22:13:20+00:00");
    }

    #[test]
    fn start_column_grows_coarser() {
        let now = 1_700_000_000;
        let column = |seconds| start_column(seconds, now * 1_000_000_000, &TimeZone::UTC);
        assert_eq!(column(now - 600), "22:03");
        assert_eq!(column(now - 86_400 * 3), "Nov11");
        assert_eq!(column(now - 86_400 * 400), "2022");
    }
}
