//! Signals by name and number.

use crate::error::{Error, Result};

/// Names of the ordinary signals, the n-th being number n + 1 (the numbering of all machines this is built for).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

pub(crate) const KILL: i32 = 9;
pub(crate) const CHILD: i32 = 17;
pub(crate) const WINDOW: i32 = 28;

/// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let wrong = || Error::new(format!("unknown signal `{text}`"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).map_err(|_| wrong());
    }
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    let number = match name {
        "IOT" => Some(6),
        "POLL" => Some(29),
        _ if name.starts_with("RTMIN") => offset(name[5..].trim_start_matches('+')).map(|n| 34 + n),
        _ if name.starts_with("RTMAX") => offset(&name[5..]).map(|n| 64 + n),
        _ => None,
    };
    number.filter(|number| (34..=64).contains(number) || matches!(number, 6 | 29)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_every_name() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sigint", 2),
            ("28", 28),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGNOTHING", "RTMAX+1", "-9"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
