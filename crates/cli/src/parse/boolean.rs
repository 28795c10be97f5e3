//! Booleans as Go's flag package reads them: `--tty=false`, `--rm=1`.

use super::{ParseError, Parsed};

/// Reads what `strconv.ParseBool` reads.
pub(crate) fn parse(text: &str) -> Parsed<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ParseError::new(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parse_reads_gos_spellings_only() {
        assert_eq!(parse("1"), Ok(true));
        assert_eq!(parse("False"), Ok(false));
        assert!(parse("yes").is_err());
        assert!(parse("").is_err());
    }
}
