//! `--add-host name:address`, `name=address`, `name:host-gateway`.

use std::net::IpAddr;

use super::{ParseError, Parsed};

/// A name and its address (or `host-gateway`, which the engine resolves).
pub(crate) fn parse(text: &str) -> Parsed<(String, String)> {
    let invalid = || ParseError::new(format!("bad format for add-host: \"{text}\""));
    // With `=` the address may hold colons; with `:` everything after the first one is the address.
    let separator = text.find(['=', ':']).ok_or_else(invalid)?;
    let (name, address) = (&text[..separator], &text[separator + 1..]);
    if name.is_empty() {
        return Err(invalid());
    }
    if address == "host-gateway" {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let ip: IpAddr = bare
        .parse()
        .map_err(|_| ParseError::new(format!("invalid IP address in add-host: \"{address}\"")))?;
    Ok((name.to_owned(), ip.to_string()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parse_reads_both_separators_and_both_families() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(parse("db:10.0.0.1"), pair("db", "10.0.0.1"));
        assert_eq!(parse("db=10.0.0.1"), pair("db", "10.0.0.1"));
        assert_eq!(parse("db:::1"), pair("db", "::1"));
        assert_eq!(parse("db=[::1]"), pair("db", "::1"));
        assert_eq!(parse("db:host-gateway"), pair("db", "host-gateway"));
        for bad in ["db", ":1.2.3.4", "db:", "db:1.2.3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
