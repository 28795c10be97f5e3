//! What is asked of the image room, and what it answers.

use std::collections::BTreeMap;

use cata_spec::image::{Descriptor, History, ImageConfig, Manifest};
use cata_spec::{Digest, Platform, Reference};

/// An image of the store: everything `run`, `inspect` and `images` need.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The image id: the digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
    /// Its tags; empty for a dangling image.
    pub names: Vec<Reference>,
    /// `name@digest` as registries know it.
    pub repo_digests: Vec<Reference>,
    /// Bytes of its unpacked layers, as Docker's SIZE.
    pub size: u64,
    /// The index whose member for a platform this is, if its names lead to one.
    pub index: Option<Descriptor>,
}

impl Image {
    /// The digests of its uncompressed layers, lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }

    /// What its names lead to: the index it is a member of, or its manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.index.as_ref().map_or(self.manifest_digest, |index| index.digest)
    }

    /// When it was made, RFC 3339.
    #[must_use]
    pub fn created(&self) -> Option<&str> {
        self.config.created.as_deref()
    }

    /// What it was built for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }
}

/// `pull`.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// What.
    pub reference: Reference,
    /// `--platform`; the host's when absent.
    pub platform: Option<Platform>,
}

/// What `pull` did.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// What `Digest:` shows: the digest the registry knows the reference by (an index's, if it is one).
    pub digest: Digest,
    /// False: "Image is up to date".
    pub changed: bool,
}

/// `push`.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// What: a name in the store, and where it goes.
    pub reference: Reference,
    /// `--platform`: of an index this member alone.
    pub platform: Option<Platform>,
    /// Layers are sent as they are, plain ones too.
    pub as_it_is: bool,
}

/// What `push` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest on the registry.
    pub digest: Digest,
    /// The manifest's size, as Docker prints it.
    pub size: u64,
}

/// One image that `load` brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image id.
    pub id: Digest,
    /// Its names in the archive; empty: `Loaded image ID: …`.
    pub names: Vec<Reference>,
}

/// `import`.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    /// The new image's name; dangling when absent.
    pub reference: Option<Reference>,
    /// `--change`, in order, in Dockerfile syntax.
    pub changes: Vec<String>,
    /// `--message`.
    pub message: Option<String>,
    /// `--platform`; the host's when absent.
    pub platform: Option<Platform>,
}

/// An image made of layers that are in the store: `build`, `commit`.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Its configuration, layers and history included.
    pub config: ImageConfig,
    /// Its layers as blobs of the store, lowest first, one for each diff-id of the configuration.
    pub layers: Vec<Descriptor>,
    /// Its names; dangling without.
    pub names: Vec<Reference>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Docker's media types in place of OCI's.
    pub docker: bool,
}

/// An index of images that are in the store: `build` for several platforms, or with attestations.
#[derive(Debug, Clone, Default)]
pub struct IndexRequest {
    /// Its members, with their platforms.
    pub manifests: Vec<Descriptor>,
    /// Its names; dangling without.
    pub names: Vec<Reference>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Docker's media type in place of OCI's.
    pub docker: bool,
}

/// One member of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// As the index says.
    pub descriptor: Descriptor,
    /// Its manifest; `None`: it is not here.
    pub manifest: Option<Manifest>,
}

impl Member {
    /// Whether it says something of another member, and is no image.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        is_attestation(&self.descriptor)
    }
}

/// Whether a member of an index says something of another one, and is no image.
#[must_use]
pub fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
}

/// `rmi`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// `--force`: every name of an id; an image that stopped containers use only loses its names.
    pub force: bool,
}

/// One line of `rmi`'s output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// `Untagged: …`
    Untagged(Reference),
    /// `Deleted: …` an image or one of its layers.
    Deleted(Digest),
}

/// One line of `history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image id on the newest line; else `<missing>`.
    pub id: Option<Digest>,
    /// What the image says.
    pub step: History,
    /// Bytes of the layer it made; 0 if it made none.
    pub size: u64,
    /// Tags, on the newest line.
    pub names: Vec<Reference>,
}
