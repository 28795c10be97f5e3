//! `system df`: what takes up the disk, and how much of it `prune` would give back.

use std::collections::{BTreeSet, HashMap, HashSet};

use cata_image::Image;
use cata_sandbox::status::Status;
use cata_spec::{Digest, Name};

use crate::build::CacheEntry;
use crate::container::live::Owner;
use crate::container::size::tree_size;
use crate::engine::Engine;
use crate::error::Result;
use crate::prune::volumes_of;
use crate::record::Record;
use crate::volume::{self, Volume};

/// Everything that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskUsage {
    /// Newest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all layers of images, each counted once.
    pub layers: u64,
    /// Bytes of the layers that no container's image has.
    pub layers_unused: u64,
    /// Newest first.
    pub containers: Vec<ContainerUsage>,
    /// By name.
    pub volumes: Vec<VolumeUsage>,
    /// Least recently used first.
    pub build_cache: Vec<CacheEntry>,
}

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageUsage {
    /// The image; its size has all its layers.
    pub image: Image,
    /// Bytes of its layers that another image has too.
    pub shared: u64,
    /// Containers made of it.
    pub containers: usize,
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerUsage {
    /// The container.
    pub record: Record,
    /// What it is doing.
    pub status: Status,
    /// Whether it runs or is paused.
    pub alive: bool,
    /// Bytes it has written itself.
    pub written: u64,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The volume.
    pub volume: Volume,
    /// Bytes of its files.
    pub size: u64,
    /// Containers that mount it.
    pub containers: usize,
}

impl Engine {
    /// Measures everything; that takes as long as it takes to look at every file of containers and volumes.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let records = self.records_newest_first()?;
        let (images, layers, layers_unused) = self.image_usage(&records)?;
        let mut containers = Vec::with_capacity(records.len());
        for record in records {
            let (status, owner) = self.status(&record.id)?;
            let written = tree_size(&self.dir(&record.id).upper()).unwrap_or(0);
            containers.push(ContainerUsage { record, status, alive: owner == Owner::Alive, written });
        }
        let mut volumes = Vec::new();
        for found in self.volume_list()? {
            let mounts = |used: &ContainerUsage| volumes_of(&used.record).any(|name| *name == found.name);
            let users = containers.iter().filter(|used| mounts(used)).count();
            let size = self.volume_size(&found.name);
            volumes.push(VolumeUsage { volume: found, size, containers: users });
        }
        let build_cache = self.build_cache()?;
        Ok(DiskUsage { images, layers, layers_unused, containers, volumes, build_cache })
    }

    /// Bytes of a volume's files; what vanishes meanwhile counts nothing.
    fn volume_size(&self, name: &Name) -> u64 {
        tree_size(&volume::data(&self.paths, name)).unwrap_or(0)
    }

    fn image_usage(&self, records: &[Record]) -> Result<(Vec<ImageUsage>, u64, u64)> {
        let list = self.image_list()?;
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut owners: HashMap<Digest, usize> = HashMap::new();
        for image in &list {
            sizes.extend(self.layer_sizes(image));
            let own: BTreeSet<&Digest> = image.diff_ids().iter().collect();
            own.into_iter().for_each(|layer| *owners.entry(*layer).or_default() += 1);
        }
        let mut used: HashSet<Digest> = HashSet::new();
        let mut images = Vec::with_capacity(list.len());
        for image in list {
            let id = image.id.to_string();
            let containers = records.iter().filter(|record| record.image.id == id).count();
            if containers > 0 {
                used.extend(image.diff_ids());
            }
            let own: BTreeSet<&Digest> = image.diff_ids().iter().collect();
            let of = |layer: &&Digest| owners.get(*layer).is_some_and(|owners| *owners > 1);
            let shared = own.into_iter().filter(of).filter_map(|layer| sizes.get(layer)).sum();
            images.push(ImageUsage { image, shared, containers });
        }
        let all = sizes.values().sum();
        let unused = sizes.iter().filter(|(layer, _)| !used.contains(*layer)).map(|(_, size)| size).sum();
        Ok((images, all, unused))
    }
}
