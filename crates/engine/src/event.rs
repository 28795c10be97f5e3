//! Events: what this engine's commands write into the journal, and reading it.
//!
//! What happens to a container that runs is written by its supervisor, in the order in which it happens; all
//! else by the command that does it, once it is done.

use std::collections::BTreeMap;

use cata_image::Image;
use cata_network::Network;
use cata_sandbox::journal::{self, Query};
use cata_sandbox::journal::{Entry, Story, Subject};
use cata_spec::Name;
use serde_json::{Value, json};

use crate::container::live::NetworkFacts;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::plan::events::EventFilter;
use crate::record::{MountKind, MountPoint, Record};

/// Attributes of an event.
type Attributes = BTreeMap<String, String>;

impl Engine {
    /// Hands events to `each` until it returns false, or the query's end has come.
    ///
    /// # Errors
    /// The journal cannot be read or watched.
    pub fn events(
        &self,
        query: &Query<'_>,
        filter: &EventFilter,
        each: &mut dyn FnMut(&Entry) -> bool,
    ) -> Result<()> {
        let directory = journal::directory(&self.paths.state);
        journal::read(&directory, query, &mut |entry| !filter.passes(&entry) || each(&entry))
            .map_err(Error::file("read", directory))
    }

    /// What happened to something that is no container.
    pub(crate) fn tell(&self, subject: Subject, action: &str, id: &str, attributes: Attributes) {
        journal::write(&journal::directory(&self.paths.state), &Entry::now(subject, action, id, attributes));
    }

    /// What happened to a container.
    pub(crate) fn tell_container(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        if is_told(record) {
            let mut attributes = attributes(record);
            attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            self.tell(Subject::Container, action, record.id.as_str(), attributes);
        }
    }

    /// A network was made or removed.
    pub(crate) fn tell_network(&self, network: &Network, action: &str) {
        let attributes = pairs([("name", network.name.as_str()), ("type", network.driver.as_str())]);
        self.tell(Subject::Network, action, &network.id, attributes);
    }

    /// A volume was made or removed.
    pub(crate) fn tell_volume(&self, name: &Name, action: &str) {
        self.tell(Subject::Volume, action, name.as_str(), pairs([("driver", "local")]));
    }

    /// What a prune has freed.
    pub(crate) fn tell_prune(&self, subject: Subject, freed: u64) {
        self.tell(subject, "prune", "", pairs([("reclaimed", &freed.to_string())]));
    }

    /// What happened to an image, known by `id` (an id, or a name where that is what was asked for).
    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str, image: Option<&Image>) {
        let mut attributes = pairs([("name", name)]);
        if let Some(image) = image {
            let labels = image.config.config.labels.iter();
            attributes.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
        }
        self.tell(Subject::Image, action, id, attributes);
    }

    /// The volumes that a starting container mounts.
    pub(crate) fn tell_mounts(&self, record: &Record) {
        if is_told(record) {
            for (name, mut attributes, mount) in volumes(record) {
                attributes.insert("destination".to_owned(), mount.target.clone());
                attributes.insert("propagation".to_owned(), String::new());
                attributes.insert("read/write".to_owned(), (!mount.read_only).to_string());
                self.tell(Subject::Volume, "mount", name.as_str(), attributes);
            }
        }
    }

    /// The networks that a starting container has joined.
    pub(crate) fn tell_connected(&self, record: &Record, facts: &NetworkFacts) {
        if is_told(record) {
            for entry in endpoints(record, facts, "connect") {
                journal::write(&journal::directory(&self.paths.state), &entry);
            }
        }
    }

    /// A container was put on a network, or taken off it.
    pub(crate) fn tell_endpoint(&self, record: &Record, network: &Network, action: &'static str) {
        if is_told(record) {
            let name = network.name.as_str();
            let attributes =
                pairs([("container", record.id.as_str()), ("name", name), ("type", network.driver.as_str())]);
            self.tell(Subject::Network, action, &network.id, attributes);
        }
    }

    /// What its supervisor has to tell of a container, but for its networks.
    pub(crate) fn story(&self, record: &Record) -> Option<Story> {
        is_told(record).then(|| Story {
            journal: journal::directory(&self.paths.state),
            attributes: attributes(record),
            endings: volumes(record)
                .map(|(name, attributes, _)| {
                    Entry::now(Subject::Volume, "unmount", name.as_str(), attributes)
                })
                .collect(),
        })
    }
}

/// What its supervisor tells of its networks when the container has ended.
pub(crate) fn disconnects(record: &Record, facts: &NetworkFacts) -> Vec<Entry> {
    if is_told(record) { endpoints(record, facts, "disconnect").collect() } else { Vec::new() }
}

/// Machines and steps of builds are containers that no listing has either.
fn is_told(record: &Record) -> bool {
    record.request.machine.is_none() && !record.request.leashed
}

fn pairs<const N: usize>(list: [(&str, &str); N]) -> Attributes {
    list.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// PURE: what is said with every event of a container.
fn attributes(record: &Record) -> Attributes {
    let mut attributes = record.config.labels.clone();
    attributes.extend(pairs([("image", record.image.reference.as_str()), ("name", record.name.as_str())]));
    attributes
}

fn volumes(record: &Record) -> impl Iterator<Item = (&Name, Attributes, &MountPoint)> {
    record.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Volume { name, .. } => {
            Some((name, pairs([("container", record.id.as_str()), ("driver", "local")]), mount))
        }
        _ => None,
    })
}

fn endpoints(record: &Record, facts: &NetworkFacts, action: &'static str) -> impl Iterator<Item = Entry> {
    facts.endpoints.iter().map(move |endpoint| {
        let attributes = pairs([
            ("container", record.id.as_str()),
            ("name", endpoint.network.as_str()),
            ("type", "bridge"),
        ]);
        Entry::now(Subject::Network, action, endpoint.network_id.clone(), attributes)
    })
}

/// PURE: an event as Docker's document.
#[must_use]
pub fn document(entry: &Entry) -> Value {
    let mut document = serde_json::Map::new();
    if matches!(entry.subject, Subject::Container | Subject::Image) {
        // What events were before they had a type.
        document.insert("status".to_owned(), json!(entry.action));
        document.insert("id".to_owned(), json!(entry.id));
        if let (Subject::Container, Some(image)) = (entry.subject, entry.attributes.get("image")) {
            document.insert("from".to_owned(), json!(image));
        }
    }
    document.insert("Type".to_owned(), json!(entry.subject.name()));
    document.insert("Action".to_owned(), json!(entry.action));
    document.insert("Actor".to_owned(), json!({"ID": entry.id, "Attributes": entry.attributes}));
    document.insert("scope".to_owned(), json!("local"));
    document.insert("time".to_owned(), json!(entry.at.div_euclid(1_000_000_000)));
    document.insert("timeNano".to_owned(), json!(entry.at));
    Value::Object(document)
}
