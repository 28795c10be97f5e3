//! PURE: spans of time in Docker's words, for the doors.

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `3 minutes`, `About an hour`; `nanos` are nanoseconds.
#[must_use]
pub fn span(nanos: u64) -> String {
    let seconds = nanos / NANOS_PER_SECOND;
    let minutes = seconds / 60;
    // Hours are rounded, as Docker does.
    let hours = (minutes + 30) / 60;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_dockers() {
        assert_eq!(span(90 * NANOS_PER_SECOND), "About a minute");
    }
}
