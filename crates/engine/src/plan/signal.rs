//! PURE: signal names and numbers.

use crate::error::Error;

/// Linux's signal names in order of their numbers, without `SIG` (x86 and arm).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal that C libraries leave to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Parses `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
///
/// # Errors
/// [`Error::Invalid`] with Docker's words.
pub fn parse(text: &str) -> Result<i32, Error> {
    let invalid = || Error::Invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|name| *name == bare) {
        return i32::try_from(index + 1).map_err(|_| invalid());
    }
    let number = match bare {
        "IOT" => 6,
        "POLL" => 29,
        "CLD" => 17,
        "RTMIN" => RTMIN,
        "RTMAX" => RTMAX,
        _ => {
            let (base, offset) = if let Some(offset) = bare.strip_prefix("RTMIN+") {
                (RTMIN, offset.parse::<i32>().map_err(|_| invalid())?)
            } else if let Some(offset) = bare.strip_prefix("RTMAX-") {
                (RTMAX, -offset.parse::<i32>().map_err(|_| invalid())?)
            } else {
                return Err(invalid());
            };
            base.checked_add(offset).ok_or_else(invalid)?
        }
    };
    if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_names_numbers_and_real_time() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGINT", 2), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIGFOO", "0", "65", "RTMIN+99", "-1", "RTMIN+2147483647"] {
            assert_eq!(parse(bad).unwrap_err().to_string(), format!("invalid signal: {bad}"));
        }
    }
}
