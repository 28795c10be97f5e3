//! `--filter name=value`, several of which mean: any of the same name, all of different names.

use std::collections::BTreeMap;

use super::{ParseError, Parsed};

/// What was asked for: each name with the values of which one must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the flags; names outside `known` are refused as Docker does.
    pub(crate) fn parse(typed: &[String], known: &[&str]) -> Parsed<Self> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in typed {
            let Some((name, value)) = text.split_once('=') else {
                return Err(ParseError::new(format!(
                    "invalid argument \"{text}\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"
                )));
            };
            let name = name.trim().to_lowercase();
            if !known.contains(&name.as_str()) {
                return Err(ParseError::new(format!("invalid filter '{name}'")));
            }
            filters.entry(name).or_default().push(value.trim().to_owned());
        }
        Ok(Self(filters))
    }

    /// The values asked for under a name; empty when it was not asked for.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing was asked under `name`, or one of its values passes `test`.
    pub(crate) fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether every value asked under `name` passes (labels).
    pub(crate) fn all(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        self.values(name).iter().all(|value| test(value))
    }
}

/// Whether `labels` hold what `label=key` or `label=key=value` asks.
pub(crate) fn label_matches(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Filters, label_matches};

    #[test]
    fn same_name_is_any_and_unknown_names_are_refused() {
        let filters = Filters::parse(&["name=a".into(), "name=b".into()], &["name"]).unwrap();
        assert!(filters.any("name", |v| v == "b"));
        assert!(!filters.any("name", |v| v == "c"));
        assert!(filters.any("id", |_| false));
        assert_eq!(Filters::parse(&["x=1".into()], &["name"]).unwrap_err().to_string(), "invalid filter 'x'");
        assert!(Filters::parse(&["name".into()], &["name"]).is_err());
    }

    #[test]
    fn labels_match_by_key_or_by_pair() {
        let labels = BTreeMap::from([("a.b".to_owned(), "1".to_owned())]);
        assert!(label_matches(&labels, "a.b"));
        assert!(label_matches(&labels, "a.b=1"));
        assert!(!label_matches(&labels, "a.b=2"));
    }
}
