//! `--log-driver` and `--log-opt`.

use cata_engine::request::LogPlan;

use super::{ParseError, Parsed, size};

/// Docker keeps one unbounded file by default; here it is bounded, so that logs cannot fill a disk.
const MAX_SIZE_BYTES: u64 = 10_000_000;
const MAX_FILE: u32 = 5;

/// `None` when neither flag was given.
pub(crate) fn parse(driver: Option<&str>, options: &[String]) -> Parsed<Option<LogPlan>> {
    match driver {
        None if options.is_empty() => return Ok(None),
        None | Some("" | "json-file") => {}
        Some("none") if options.is_empty() => return Ok(Some(LogPlan::None)),
        Some("none") => return Err(ParseError::new("invalid logging opts for driver none")),
        Some(other) => {
            return Err(ParseError::new(format!(
                "log driver '{other}' is not supported yet: use json-file or none"
            )));
        }
    }
    let (mut max_size, mut max_file) = (MAX_SIZE_BYTES, MAX_FILE);
    for text in options {
        match text.split_once('=') {
            Some(("max-size", "-1")) => max_size = u64::MAX,
            Some(("max-size", value)) => max_size = size::decimal(value).and_then(|n| positive(n, value))?,
            Some(("max-file", value)) => {
                max_file = value.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| {
                    ParseError::new(format!("max-file must be a positive number, not '{value}'"))
                })?;
            }
            Some((name, _)) => {
                return Err(ParseError::new(format!(
                    "log opt '{name}' is not supported yet for json-file log driver"
                )));
            }
            None => {
                return Err(ParseError::new(format!("invalid logging option '{text}': must be name=value")));
            }
        }
    }
    Ok(Some(LogPlan::JsonFile { max_size, max_file }))
}

fn positive(bytes: u64, typed: &str) -> Parsed<u64> {
    if bytes == 0 {
        Err(ParseError::new(format!("max-size must be positive, not '{typed}'")))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use cata_engine::request::LogPlan;

    use super::parse;

    #[test]
    fn parse_lays_options_over_the_defaults() {
        let options = ["max-size=20m".to_owned()];
        assert_eq!(parse(None, &options), Ok(Some(LogPlan::JsonFile { max_size: 20_000_000, max_file: 5 })));
        assert_eq!(parse(None, &[]), Ok(None));
        assert_eq!(parse(Some("none"), &[]), Ok(Some(LogPlan::None)));
        assert!(parse(Some("syslog"), &[]).is_err());
        assert!(parse(None, &["max-file=0".into()]).is_err());
        assert!(parse(None, &["labels=x".into()]).is_err());
    }
}
