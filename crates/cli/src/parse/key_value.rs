//! `key=value` lists: labels, sysctls, annotations, driver options.

use std::collections::BTreeMap;

use super::{ParseError, Parsed};

/// Labels: a name without `=` has an empty value; the last one wins.
pub(crate) fn labels(typed: &[String]) -> Parsed<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for text in typed {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(ParseError::new(format!("invalid label '{text}': empty name")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// A list in which each item must have a name and a `=`.
pub(crate) fn pairs(typed: &[String], what: &str) -> Parsed<BTreeMap<String, String>> {
    typed
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(ParseError::new(format!("invalid {what} '{text}': must be formatted as key=value"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{labels, pairs};

    #[test]
    fn labels_may_lack_a_value() {
        let map = labels(&["a=b=c".into(), "d".into(), "a=2".into()]).unwrap();
        assert_eq!(map["a"], "2");
        assert_eq!(map["d"], "");
        assert!(labels(&["=x".into()]).is_err());
    }

    #[test]
    fn pairs_may_not() {
        assert!(pairs(&["net.core.somaxconn=1".into()], "sysctl").is_ok());
        let error = pairs(&["x".into()], "sysctl").unwrap_err();
        assert_eq!(error.to_string(), "invalid sysctl 'x': must be formatted as key=value");
    }
}
