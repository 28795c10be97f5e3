//! `--filter` of `prune` commands: `until=…`, `label=…`, `label!=…`.

use cata_engine::prune::{LabelTest, PruneFilter};
use jiff::tz::TimeZone;

use super::filter::Filters;
use super::{ParseError, Parsed, time};

/// The names all of them know.
const KNOWN: [&str; 3] = ["until", "label", "label!"];

/// Reads the flags; `more` are names that this command knows besides, which come back with their values.
pub(crate) fn filter(typed: &[String], more: &[&str], now: u64) -> Parsed<(PruneFilter, Filters)> {
    let known: Vec<&str> = KNOWN.iter().chain(more).copied().collect();
    let filters = Filters::parse(typed, &known)?;
    let until = match filters.values("until") {
        [] => None,
        [text] => Some(time::parse(text, now, &TimeZone::system())?),
        _ => return Err(ParseError::new("more than one `until` filter specified")),
    };
    let tests = |name, negated| filters.values(name).iter().map(move |text| test(text, negated));
    let labels = tests("label", false).chain(tests("label!", true)).collect();
    Ok((PruneFilter { until, labels }, filters))
}

fn test(text: &str, negated: bool) -> LabelTest {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    LabelTest { key: key.to_owned(), value, negated }
}

#[cfg(test)]
mod tests {
    use super::filter;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn filters_of_prune_are_dockers() {
        let read = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
            filter(&typed, &["all"], 30 * HOUR)
        };
        let (filter, rest) = read(&["until=24h", "label=a", "label=b=1", "label!=c=2=3", "all=1"]).unwrap();
        assert_eq!(filter.until, Some(6 * HOUR));
        let labels: Vec<_> = filter
            .labels
            .iter()
            .map(|test| (test.key.as_str(), test.value.as_deref(), test.negated))
            .collect();
        assert_eq!(labels, [("a", None, false), ("b", Some("1"), false), ("c", Some("2=3"), true)]);
        assert_eq!(rest.values("all"), ["1"]);
        assert!(read(&["until=1h", "until=2h"]).is_err());
        assert!(read(&["name=x"]).is_err());
        assert!(read(&["until=soon"]).is_err());
    }
}
