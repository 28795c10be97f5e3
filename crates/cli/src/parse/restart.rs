//! `--restart`: `no`, `always`, `unless-stopped`, `on-failure[:times]`.

use cata_engine::request::RestartPolicy;

use super::{ParseError, Parsed};

/// Docker's policies, in Docker's spelling.
pub(crate) fn parse(text: &str) -> Parsed<RestartPolicy> {
    let (name, times) = match text.split_once(':') {
        Some((name, times)) => (name, Some(times)),
        None => (text, None),
    };
    let max = match times {
        None => None,
        Some(times) => Some(times.parse::<u32>().map_err(|_| {
            ParseError::new(format!(
                "invalid restart policy format: maximum retry count must be an integer: '{times}'"
            ))
        })?),
    };
    match (name, max) {
        ("no" | "", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        // Docker's 0 means: no limit.
        ("on-failure", max) => Ok(RestartPolicy::OnFailure { max: max.filter(|times| *times > 0) }),
        ("no" | "always" | "unless-stopped", Some(_)) => Err(ParseError::new(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure', not '{name}'"
        ))),
        _ => Err(ParseError::new(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use cata_engine::request::RestartPolicy;

    use super::parse;

    #[test]
    fn parse_reads_all_policies() {
        assert_eq!(parse("no"), Ok(RestartPolicy::No));
        assert_eq!(parse("unless-stopped"), Ok(RestartPolicy::UnlessStopped));
        assert_eq!(parse("on-failure"), Ok(RestartPolicy::OnFailure { max: None }));
        assert_eq!(parse("on-failure:3"), Ok(RestartPolicy::OnFailure { max: Some(3) }));
        for bad in ["always:3", "on-failure:x", "sometimes", "on-failure:-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
