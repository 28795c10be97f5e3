//! `--ulimit name=soft[:hard]`.

use cata_engine::request::Ulimit;

use super::{ParseError, Parsed};

const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// One limit; a missing hard limit is the soft one; `-1` is unlimited.
pub(crate) fn parse(text: &str) -> Parsed<Ulimit> {
    let invalid = || ParseError::new(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !NAMES.contains(&name) {
        return Err(ParseError::new(format!("invalid ulimit type: {name}")));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(invalid),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(ParseError::new(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parse_reads_one_or_two_limits() {
        let limit = parse("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 2048));
        let limit = parse("core=-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (-1, -1));
        for bad in
            ["nofile", "nofiles=1", "nofile=2:1", "nofile=x", "nofile=-2", "nofile=-1:5", "nofile=1:2:3"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
