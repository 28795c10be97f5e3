//! Which events were asked for: Docker's filters of `events`. Pure.

use std::collections::BTreeMap;

use cata_sandbox::journal::{Entry, Subject};

use crate::error::{Error, Result};

/// Filters by name; of one name any value may fit, of different names all must.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter(BTreeMap<String, Vec<String>>);

/// What can be asked for. Docker's others (`config`, `node`, `plugin`, `secret`, `service`) are of things that are
/// not here.
pub const NAMES: [&str; 9] =
    ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

impl EventFilter {
    /// Filters as the door has read them.
    ///
    /// # Errors
    /// A name that is not one of [`NAMES`].
    pub fn new(filters: BTreeMap<String, Vec<String>>) -> Result<Self> {
        match filters.keys().find(|name| !NAMES.contains(&name.as_str())) {
            Some(name) => Err(Error::Invalid(format!("invalid filter '{name}'"))),
            None => Ok(Self(filters)),
        }
    }

    /// Whether an event is one of those that were asked for.
    #[must_use]
    pub fn passes(&self, entry: &Entry) -> bool {
        self.0.iter().all(|(name, values)| {
            values.is_empty()
                || match name.as_str() {
                    "label" => values.iter().all(|label| has_label(entry, label)),
                    name => values.iter().any(|value| fits(entry, name, value)),
                }
        })
    }
}

fn fits(entry: &Entry, name: &str, value: &str) -> bool {
    let attribute = |key: &str| entry.attributes.get(key).map_or("", String::as_str);
    let is = |subject: Subject| entry.subject == subject;
    let begins = |text: &str| !value.is_empty() && text.starts_with(value);
    match name {
        // `health_status` is each of its kinds, and `exec_start` whatever is started.
        "event" => {
            entry.action == value
                || entry.action.strip_prefix(value).is_some_and(|rest| rest.starts_with(": "))
        }
        "type" => entry.subject.name() == value,
        "scope" => value == "local",
        "container" => is(Subject::Container) && (begins(&entry.id) || begins(attribute("name"))),
        "network" => is(Subject::Network) && (begins(&entry.id) || begins(attribute("name"))),
        "volume" => is(Subject::Volume) && begins(&entry.id),
        "image" => {
            let named = match entry.subject {
                Subject::Container => attribute("image"),
                Subject::Image => attribute("name"),
                _ => return false,
            };
            [entry.id.as_str(), named, untagged(named)].contains(&value)
        }
        _ => false,
    }
}

/// An image's name without its tag.
fn untagged(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

fn has_label(entry: &Entry, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => entry.attributes.get(key).is_some_and(|have| have == value),
        None => entry.attributes.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pairs: &[(&str, &str)]) -> EventFilter {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in pairs {
            filters.entry((*name).to_owned()).or_default().push((*value).to_owned());
        }
        EventFilter::new(filters).unwrap()
    }

    #[test]
    fn events_pass_by_all_names_and_any_value() {
        let attributes = [("name", "web"), ("image", "site:5000/app:1"), ("tier", "front")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let entry = Entry {
            at: 1,
            subject: Subject::Container,
            action: "health_status: healthy".to_owned(),
            id: "0123456789".to_owned(),
            attributes,
        };
        for passing in [
            &[("container", "0123")][..],
            &[("container", "we")],
            &[("event", "health_status")],
            &[("event", "die"), ("event", "health_status: healthy")],
            &[("image", "site:5000/app")],
            &[("image", "site:5000/app:1"), ("type", "container"), ("scope", "local")],
            &[("label", "tier"), ("label", "tier=front")],
            &[],
        ] {
            assert!(filter(passing).passes(&entry), "{passing:?}");
        }
        for failing in [
            &[("container", "123")][..],
            &[("event", "health")],
            &[("image", "site")],
            &[("label", "tier"), ("label", "tier=back")],
            &[("type", "image")],
            &[("type", "container"), ("event", "die")],
            &[("network", "web")],
        ] {
            assert!(!filter(failing).passes(&entry), "{failing:?}");
        }
        assert!(EventFilter::new([("node".to_owned(), Vec::new())].into()).is_err());
    }
}
