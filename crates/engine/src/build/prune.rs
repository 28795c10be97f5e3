//! `builder du` and `builder prune`.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cache::Cache;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Something that builds keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// A short name.
    pub id: String,
    /// The instruction, or the id of a cache mount.
    pub description: String,
    /// `regular`, `exec.cachemount`, or `source` for what was fetched.
    pub kind: &'static str,
    /// Bytes that would be freed.
    pub size: u64,
    /// Whether an image has its layer too: then it frees nothing.
    pub shared: bool,
    /// When it was made, RFC 3339, where that is known.
    pub created: Option<String>,
    /// When it was last used.
    pub used: SystemTime,
}

/// Which entries are meant; of what is given, everything must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// How its name begins.
    pub ids: Vec<String>,
    /// Its kind.
    pub kinds: Vec<String>,
    /// What its description holds.
    pub descriptions: Vec<String>,
    /// Whether an image has its layer too.
    pub shared: Option<bool>,
    /// Whether a build is using it: nothing is, when there is an answer.
    pub in_use: Option<bool>,
    /// Only what was not used for so long.
    pub until: Option<Duration>,
}

impl CacheFilter {
    /// Whether an entry is meant.
    #[must_use]
    pub fn takes(&self, entry: &CacheEntry, now: SystemTime) -> bool {
        let any = |list: &[String], fits: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(fits);
        let idle = now.duration_since(entry.used).unwrap_or_default();
        any(&self.ids, &|id| entry.id.starts_with(id.as_str()) || id.starts_with(&entry.id))
            && any(&self.kinds, &|kind| *kind == entry.kind)
            && any(&self.descriptions, &|text| entry.description.contains(text.as_str()))
            && self.shared.is_none_or(|shared| shared == entry.shared)
            && self.in_use != Some(true)
            && self.until.is_none_or(|until| idle >= until)
    }
}

/// What is to be removed.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Cache mounts too.
    pub all: bool,
    /// Only these.
    pub filter: CacheFilter,
    /// How much stays.
    pub keep: Keep,
}

/// What is to be reached, in bytes; nothing: everything goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// So much stays in any case.
    pub reserved: Option<u64>,
    /// No more than this stays.
    pub max_used: Option<u64>,
    /// So much of the disk is to be free.
    pub min_free: Option<u64>,
}

impl Keep {
    /// The bytes that may stay of those that are used; `None`: no reason to keep any.
    fn goal(&self, used: u64, free: u64) -> Option<u64> {
        if *self == Self::default() {
            return None;
        }
        let freed = self.min_free.map(|wanted| used.saturating_sub(wanted.saturating_sub(free)));
        // What is reserved is all there is to keep if nothing else is said.
        let most = [self.max_used, freed].into_iter().flatten().min().unwrap_or(0);
        Some(most.max(self.reserved.unwrap_or(0)))
    }
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries.
    pub entries: Vec<CacheEntry>,
    /// Bytes.
    pub freed: u64,
}

impl Engine {
    /// What builds keep, least recently used first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn build_cache(&self) -> Result<Vec<CacheEntry>> {
        if !self.paths.build().is_dir() {
            return Ok(Vec::new());
        }
        let (cache, _lock) = Cache::open(self)?;
        self.entries(&cache)
    }

    fn entries(&self, cache: &Cache) -> Result<Vec<CacheEntry>> {
        let images = self.image_list()?;
        let mut entries = Vec::new();
        for (key, record, used) in cache.steps()? {
            let shared = record
                .captured
                .as_ref()
                .is_some_and(|layer| images.iter().any(|image| image.diff_ids().contains(&layer.diff_id)));
            let size = match (&record.layer, record.size) {
                (Some(layer), 0) => tree_size(&cache.layer(layer)),
                (_, size) => size,
            };
            entries.push(CacheEntry {
                id: key.hex()[..24].to_owned(),
                description: record.title,
                kind: "regular",
                size,
                shared,
                created: Some(record.created),
                used,
            });
        }
        for (path, id, used) in cache.cache_mounts() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            entries.push(CacheEntry {
                id: name.chars().take(24).collect(),
                description: format!("cache mount {id}"),
                kind: "exec.cachemount",
                size: tree_size(&path.join("data")),
                shared: false,
                created: None,
                used,
            });
        }
        for (_, record) in cache.remotes() {
            let directory = cache.remote_directory(&record);
            entries.push(CacheEntry {
                id: record.dir.clone(),
                description: format!("fetched {}", record.url),
                kind: "source",
                size: tree_size(&directory),
                shared: false,
                created: None,
                used: fs::metadata(&directory).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        entries.sort_by_key(|entry| entry.used);
        Ok(entries)
    }

    /// Removes what builds keep. Images stay as they are.
    ///
    /// # Errors
    /// A build is at work; a file cannot be removed.
    pub fn build_prune(&self, request: &PruneRequest) -> Result<Pruned> {
        let Some((cache, _lock)) = Cache::open_alone(self)? else {
            return Err(Error::State {
                what: "a build is at work".to_owned(),
                hint: Some("prune when it has ended".to_owned()),
            });
        };
        let mut left: u64 =
            self.entries(&cache)?.iter().filter(|entry| !entry.shared).map(|entry| entry.size).sum();
        let root = self.paths.build();
        let disk = rustix::fs::statvfs(&root).map_err(Error::file("look at the disk of", root))?;
        let goal = request.keep.goal(left, disk.f_bavail.saturating_mul(disk.f_frsize));
        let mut pruned = Pruned::default();
        let now = SystemTime::now();
        for entry in self.entries(&cache)? {
            let enough = goal.is_some_and(|goal| left <= goal);
            if !request.filter.takes(&entry, now)
                || enough
                || (entry.kind == "exec.cachemount" && !request.all)
            {
                continue;
            }
            if entry.kind == "regular" {
                for (key, ..) in cache.steps()?.iter().filter(|(key, ..)| key.hex().starts_with(&entry.id)) {
                    cache.forget(key)?;
                }
            } else if entry.kind == "source" {
                for (path, _) in cache.remotes().iter().filter(|(_, record)| record.dir == entry.id) {
                    fs::remove_file(path).map_err(Error::file("remove", path))?;
                }
            } else {
                for (path, ..) in cache.cache_mounts() {
                    if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&entry.id)) {
                        fs::remove_dir_all(&path).map_err(Error::file("remove", path))?;
                    }
                }
            }
            if !entry.shared {
                pruned.freed += entry.size;
                left = left.saturating_sub(entry.size);
            }
            pruned.entries.push(entry);
        }
        cache.collect()?;
        cache.collect_remotes();
        let kept: Vec<cata_spec::Digest> = cache
            .steps()?
            .iter()
            .filter_map(|(_, record, _)| record.captured.as_ref().map(|c| c.diff_id))
            .collect();
        let unpinned = self.images.unpin_layers(|digest| kept.contains(digest));
        unpinned.map_err(|error| crate::image::image_error(error.into()))?;
        // Somebody may be adding an image this moment: then what is garbage goes the next time.
        let collected = self.images.collect_garbage();
        collected.map_err(crate::image::image_error)?;
        self.tell_prune(cata_sandbox::journal::Subject::Builder, pruned.freed);
        Ok(pruned)
    }
}

/// Bytes of the files of a tree; what cannot be looked at counts nothing.
fn tree_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.size();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goal_is_the_stricter_limit_but_never_below_what_is_reserved() {
        let goal = |reserved, max_used, min_free| Keep { reserved, max_used, min_free }.goal(100, 10);
        assert_eq!(goal(None, None, None), None);
        assert_eq!(goal(Some(30), None, None), Some(30));
        assert_eq!(goal(None, Some(40), None), Some(40));
        // 25 are to be freed; enough is free; more than all there is.
        assert_eq!(goal(None, None, Some(35)), Some(75));
        assert_eq!(goal(None, None, Some(5)), Some(100));
        assert_eq!(goal(None, None, Some(1000)), Some(0));
        assert_eq!(goal(None, Some(40), Some(35)), Some(40));
        assert_eq!(goal(Some(90), Some(40), Some(35)), Some(90));
    }
}
