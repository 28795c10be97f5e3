//! `prune`: what nobody uses goes, and nothing else.
//!
//! A network or an image that a stopped container was made with is in use: the container must start again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use cata_image::{Image, Removed};
use cata_sandbox::journal::Subject;
use cata_sandbox::stamp::Stamp;
use cata_sandbox::status::StatusKind;
use cata_spec::Name;

use crate::container::RemoveOptions;
use crate::container::live::Owner;
use crate::container::size::tree_size;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::network::network_error;
use crate::record::{MountKind, Record, moment};
use crate::volume;

/// A container this young that never ran may be one that a `run` of this moment is about to start.
const ABOUT_TO_START: Duration = Duration::from_secs(10);

/// How many volumes are locked at a time.
const HELD_AT_ONCE: usize = 100;

/// What is spared: pruned is only what fits all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Made before this, nanoseconds since the epoch.
    pub until: Option<u64>,
    /// Labels that must be there, or must not.
    pub labels: Vec<LabelTest>,
}

/// One test of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTest {
    /// Its name.
    pub key: String,
    /// Its value, if that matters.
    pub value: Option<String>,
    /// Whether what fits is spared (`label!=`).
    pub negated: bool,
}

impl LabelTest {
    fn passes(&self, labels: &BTreeMap<String, String>) -> bool {
        let fits = match (&self.value, labels.get(&self.key)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(wanted), Some(have)) => wanted == have,
        };
        fits != self.negated
    }
}

impl PruneFilter {
    /// PURE: whether something made then (nanoseconds since the epoch), with these labels, may go.
    fn lets_go(&self, created: u64, labels: &BTreeMap<String, String>) -> bool {
        self.until.is_none_or(|until| created < until) && self.labels.iter().all(|test| test.passes(labels))
    }
}

/// What went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned<T> {
    /// Each thing.
    pub removed: Vec<T>,
    /// Bytes that are free again.
    pub freed: u64,
}

impl<T> Default for Pruned<T> {
    fn default() -> Self {
        Self { removed: Vec::new(), freed: 0 }
    }
}

impl Engine {
    /// Removes containers that do not run; their ids.
    ///
    /// # Errors
    /// A file operation.
    pub fn container_prune(&self, filter: &PruneFilter) -> Result<Pruned<String>> {
        let mut pruned = Pruned::default();
        for record in self.readable_records()? {
            let (status, owner) = self.status(&record.id)?;
            let young = moment(Stamp::now()).saturating_sub(record.created) < nanos(ABOUT_TO_START);
            let about_to_start = status.status == StatusKind::Created && young;
            // A machine that is down for now has a disk full of things.
            if owner == Owner::Alive
                || about_to_start
                || record.request.machine.is_some()
                || !filter.lets_go(record.created, &record.config.labels)
            {
                continue;
            }
            let freed = tree_size(&self.dir(&record.id).upper()).unwrap_or(0);
            match self.remove(record.id.as_str(), RemoveOptions::default()) {
                Ok(()) => {
                    pruned.removed.push(record.id.to_string());
                    pruned.freed += freed;
                }
                // Started, or removed by somebody else, meanwhile.
                Err(Error::State { .. } | Error::NoContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.tell_prune(Subject::Container, pruned.freed);
        Ok(pruned)
    }

    /// Removes user-made networks that no container, running or stopped, is on; their names.
    ///
    /// # Errors
    /// What the network room says.
    pub fn network_prune(&self, filter: &PruneFilter) -> Result<Pruned<String>> {
        let records = self.readable_records()?;
        let used: BTreeSet<String> = records.iter().flat_map(networks_of).collect();
        let chosen = |network: &cata_network::Network| {
            !used.contains(network.name.as_str()) && filter.lets_go(network.created_ns, &network.labels)
        };
        let removed = self.networks()?.prune(chosen).map_err(network_error)?;
        removed.iter().for_each(|network| self.tell_network(network, "destroy"));
        self.tell_prune(Subject::Network, 0);
        Ok(Pruned {
            removed: removed.into_iter().map(|network| network.name.to_string()).collect(),
            freed: 0,
        })
    }

    /// Removes images without a name that no container is made of; with `all` those with a name too.
    ///
    /// # Errors
    /// What the image room says.
    pub fn image_prune(&self, all: bool, filter: &PruneFilter) -> Result<Pruned<Removed>> {
        let used: BTreeSet<String> = self.readable_records()?.into_iter().map(|r| r.image.id).collect();
        let mut pruned = Pruned::default();
        for image in self.image_list()? {
            let created = image.created().and_then(Stamp::parse).map_or(0, moment);
            let goes = (all || image.names.is_empty())
                && !used.contains(&image.id.to_string())
                && filter.lets_go(created, &image.config.config.labels);
            if !goes {
                continue;
            }
            let sizes = self.layer_sizes(&image);
            let mut names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
            if names.is_empty() {
                names.push(image.digest().to_string());
            }
            for name in names {
                // Not forced: who has made a container of it meanwhile keeps it.
                match self.image_remove(&name, cata_image::RemoveOptions::default()) {
                    Ok(removed) => {
                        let gone = removed.iter().filter_map(|one| match one {
                            Removed::Deleted(digest) => sizes.get(digest),
                            Removed::Untagged(_) => None,
                        });
                        pruned.freed += gone.sum::<u64>();
                        pruned.removed.extend(removed);
                    }
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.tell_prune(Subject::Image, pruned.freed);
        Ok(pruned)
    }

    /// Removes volumes that no container uses (anonymous ones only, unless `all`); their names.
    ///
    /// # Errors
    /// A file operation.
    pub fn volume_prune(&self, all: bool, filter: &PruneFilter) -> Result<Pruned<Name>> {
        let mut pruned = Pruned::default();
        let mut candidates = self.volume_list()?;
        candidates.retain(|one| (all || one.anonymous) && filter.lets_go(one.created, &one.labels));
        // No more of them at once than there are descriptors for.
        for few in candidates.chunks(HELD_AT_ONCE) {
            // Held before the records are read: who is about to use one is seen here, or holds it.
            let mut held = Vec::with_capacity(few.len());
            for one in few {
                held.extend(volume::hold_alone(&self.paths, &one.name)?.map(|hold| (&one.name, hold)));
            }
            let records = self.records()?;
            let used: BTreeSet<&Name> = records.iter().flat_map(volumes_of).collect();
            for (name, _hold) in held.into_iter().filter(|(name, _)| !used.contains(name)) {
                let freed = tree_size(&volume::data(&self.paths, name)).unwrap_or(0);
                match volume::remove(&self.paths, name) {
                    Ok(()) => {
                        self.tell_volume(name, "destroy");
                        pruned.removed.push(name.clone());
                        pruned.freed += freed;
                    }
                    Err(Error::NoVolume(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.tell_prune(Subject::Volume, pruned.freed);
        Ok(pruned)
    }

    /// Bytes of each of an image's layers.
    pub(crate) fn layer_sizes(&self, image: &Image) -> HashMap<cata_spec::Digest, u64> {
        let sized = |id: &cata_spec::Digest| Some((*id, self.images.layer_usage(id)?));
        image.diff_ids().iter().filter_map(sized).collect()
    }
}

/// The networks a container joins when it starts.
pub(crate) fn networks_of(record: &Record) -> impl Iterator<Item = String> {
    record.endpoints().into_iter().map(|endpoint| endpoint.network.to_string())
}

/// The volumes a container mounts when it starts.
pub(crate) fn volumes_of(record: &Record) -> impl Iterator<Item = &Name> {
    record.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Volume { name, .. } => Some(name),
        _ => None,
    })
}

fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(key: &str, value: Option<&str>, negated: bool) -> LabelTest {
        LabelTest { key: key.to_owned(), value: value.map(str::to_owned), negated }
    }

    #[test]
    fn filters_spare_what_is_young_and_what_is_labelled() {
        let labels = BTreeMap::from([("keep".to_owned(), "yes".to_owned())]);
        let none = BTreeMap::new();
        let filter = |until, labels| PruneFilter { until, labels };
        assert!(filter(None, vec![]).lets_go(5, &none));
        assert!(filter(Some(6), vec![]).lets_go(5, &none));
        assert!(!filter(Some(5), vec![]).lets_go(5, &none));
        assert!(filter(None, vec![test("keep", None, false)]).lets_go(5, &labels));
        assert!(!filter(None, vec![test("keep", None, false)]).lets_go(5, &none));
        assert!(!filter(None, vec![test("keep", None, true)]).lets_go(5, &labels));
        assert!(filter(None, vec![test("keep", Some("no"), true)]).lets_go(5, &labels));
        assert!(!filter(None, vec![test("keep", Some("no"), false)]).lets_go(5, &labels));
    }
}
