//! What is known of a container for as long as it exists: `record.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cata_image::Image;
use cata_sandbox::launch::HealthPlan;
use cata_sandbox::stamp::Stamp;
use cata_spec::{ContainerId, Name, Platform};
use serde::{Deserialize, Serialize};

use crate::ledger::Durability;
use crate::plan::users::Users;
use crate::request::{CreateRequest, EndpointRequest, NetworkMode, default_endpoint};

/// The version written; older ones are read by [`Record`]'s own defaults.
pub const VERSION: u32 = 1;

/// A container: what was asked, and what was decided when it was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// Nanoseconds since the epoch.
    pub created: u64,
    /// The image at creation.
    pub image: ImageFacts,
    /// What runs, after image and request were laid over each other.
    pub config: Config,
    /// Mounts beyond the root file system, volumes named.
    pub mounts: Vec<MountPoint>,
    /// Whose its ids are on the host; `None`: the same.
    #[serde(default)]
    pub users: Option<Users>,
    /// The networks it joins, once `network connect` or `disconnect` has changed what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<EndpointRequest>>,
    /// What was asked.
    pub request: CreateRequest,
}

impl Record {
    /// A container that is made now, with ids that are the host's.
    pub(crate) fn new(
        (id, name): (ContainerId, Name),
        request: CreateRequest,
        image: ImageFacts,
        config: Config,
        mounts: Vec<MountPoint>,
    ) -> Self {
        let created = moment(Stamp::now());
        let (version, users, networks) = (VERSION, None, None);
        Self { version, id, name, created, image, config, mounts, users, networks, request }
    }

    /// The networks it joins when it starts, or is on.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointRequest> {
        match (&self.networks, &self.request.network) {
            (Some(list), _) => list.clone(),
            (None, NetworkMode::Networks(list)) if list.is_empty() => vec![default_endpoint()],
            (None, NetworkMode::Networks(list)) => list.clone(),
            (None, _) => Vec::new(),
        }
    }

    /// The volumes that were made for it alone.
    pub fn anonymous_volumes(&self) -> impl Iterator<Item = &Name> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Volume { name, anonymous: true, .. } => Some(name),
            _ => None,
        })
    }

    /// `<parent>/<id>`; the parent is `/catamaran` or `--cgroup-parent`.
    #[must_use]
    pub fn cgroup_path(&self) -> PathBuf {
        let parent = self.request.cgroup_parent.as_deref().unwrap_or("/catamaran");
        Path::new("/").join(parent.trim_start_matches('/')).join(self.id.as_str())
    }

    /// `--rm` containers do not outlive a reboot: their records need not either.
    pub(crate) fn durability(&self) -> Durability {
        if self.request.auto_remove { Durability::Volatile } else { Durability::Durable }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn moment(stamp: Stamp) -> u64 {
    u64::try_from(stamp.unix_nanos()).unwrap_or(0)
}

/// Which image a container was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The image's id: `sha256:…` of its configuration.
    pub id: String,
    /// As typed.
    pub reference: String,
    /// `linux/amd64`.
    pub platform: String,
    /// Layer directories, topmost first: a start needs no look into the image store.
    pub layers: Vec<PathBuf>,
}

impl ImageFacts {
    /// Those of an image, `None`: of no image at all, with directories as its layers.
    pub(crate) fn new(image: Option<&Image>, reference: &str, layers: Vec<PathBuf>) -> Self {
        Self {
            id: image.map(|image| image.id.to_string()).unwrap_or_default(),
            reference: reference.to_owned(),
            platform: image.map_or_else(Platform::host, Image::platform).to_string(),
            layers,
        }
    }
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Entry point and command as one list; never empty.
    pub argv: Vec<String>,
    /// Entry point alone (for `inspect`).
    pub entrypoint: Vec<String>,
    /// Command alone (for `inspect`).
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers; empty: root.
    pub user: String,
    /// Empty: `/`.
    pub workdir: String,
    /// Image's and request's.
    pub labels: BTreeMap<String, String>,
    /// The host name inside.
    pub hostname: String,
    /// Ports declared, as `5432/tcp`.
    pub exposed: Vec<String>,
    /// Signal number of a polite stop.
    pub stop_signal: i32,
    /// Name or number as declared.
    pub stop_signal_name: String,
    /// Seconds; `None`: for ever.
    pub stop_timeout: Option<u64>,
    /// The probe.
    pub health: Option<HealthPlan>,
    /// The image's volumes.
    pub volumes: Vec<String>,
}

/// A mount as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What it is.
    pub kind: MountKind,
    /// On the host; empty for tmpfs.
    pub source: PathBuf,
    /// Inside.
    pub target: String,
    /// `:ro`.
    pub read_only: bool,
    /// Propagation and mount options.
    pub options: Vec<String>,
    /// Submounts too.
    pub recursive: bool,
}

/// Kinds of mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A host path.
    Bind {
        /// Whether a missing source is made (as a directory).
        create: bool,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: Name,
        /// Made for this container: goes with `rm -v` and `--rm`.
        anonymous: bool,
        /// Whether an empty volume is filled from the image.
        copy: bool,
    },
    /// Memory.
    Tmpfs,
}
