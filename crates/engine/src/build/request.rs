//! What is asked of a build, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cata_image::{Algorithm, Image};
use cata_spec::Reference;

use crate::request::{Isolation, Ulimit};

/// `build`.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// What COPY takes from.
    pub context: Context,
    /// The context's address, if it came from afar.
    pub source: Option<String>,
    /// The Dockerfile.
    pub dockerfile: DockerfileText,
    /// `-t`.
    pub tags: Vec<Reference>,
    /// `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// How the image is written: `--output`, `--annotation`.
    pub output: ImageOptions,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages.
    pub no_cache_filter: Vec<String>,
    /// `--pull`.
    pub pull: bool,
    /// `--platform`; the host's when empty. Several: an index.
    pub platforms: Vec<String>,
    /// `--secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--isolation`: what RUN is walled off with.
    pub isolation: Isolation,
    /// `--network`: `default`, `none`, `host` or a network's name.
    pub network: String,
    /// `--add-host`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size`.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--build-context`.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--allow security.insecure`.
    pub allow_insecure: bool,
    /// `--allow device`: what RUN may have of the host by name.
    pub allow_devices: AllowDevices,
    /// `SOURCE_DATE_EPOCH`, seconds.
    pub epoch: Option<i64>,
    /// Whether an image is made and named in the store.
    pub store: bool,
    /// `--cache-from`, in order.
    pub cache_from: Vec<CachePlace>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTarget>,
}

/// `--allow device[=NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowDevices {
    /// None.
    #[default]
    None,
    /// Those of these names, or kinds.
    Some(Vec<String>),
    /// Every one.
    All,
}

impl AllowDevices {
    /// Whether a device may be had: it was named, or its kind (`vendor.com/class`).
    #[must_use]
    pub fn allows(&self, device: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => names.iter().any(|name| {
                device == name
                    || device
                        .strip_prefix(name.trim_end_matches("=*"))
                        .is_some_and(|rest| rest.starts_with('='))
            }),
        }
    }
}

/// Arguments that say something to the engine itself, by BuildKit's names.
impl BuildRequest {
    /// Of an argument that is on or off.
    fn on(&self, name: &str) -> bool {
        self.args
            .get(name)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "t"))
    }

    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`: a repository that is the context keeps its `.git`.
    #[must_use]
    pub fn keeps_git(&self) -> bool {
        self.on("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
    }

    /// `BUILDKIT_INLINE_CACHE`, or `--cache-to type=inline`: the image carries its steps.
    pub(crate) fn carries_cache(&self) -> bool {
        self.on("BUILDKIT_INLINE_CACHE") || self.cache_to.iter().any(|to| to.place == CachePlace::Inline)
    }

    /// `BUILDKIT_MULTI_PLATFORM`, or several platforms: an index, though it has one member.
    pub(crate) fn is_index(&self) -> bool {
        self.platforms.len() > 1 || self.output.is_attested() || self.on("BUILDKIT_MULTI_PLATFORM")
    }

    /// `BUILDKIT_SANDBOX_HOSTNAME`: what RUN calls its host.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.args.get("BUILDKIT_SANDBOX_HOSTNAME").map(String::as_str).filter(|name| !name.is_empty())
    }

    /// `BUILDKIT_CACHE_MOUNT_NS`: caches of this name are others than those without.
    pub(crate) fn cache_id(&self, id: &str) -> String {
        match self.args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|name| !name.is_empty()) {
            Some(name) => format!("{name}/{id}"),
            None => id.to_owned(),
        }
    }
}

/// Arguments that mean something here without an ARG: proxies, the time, and those above. `BUILDKIT_SYNTAX` is as good
/// as a `# syntax=` line, and a build has no name but its image's.
pub(crate) fn is_known_argument(name: &str) -> bool {
    matches!(
        name.to_ascii_uppercase().as_str(),
        "HTTP_PROXY" | "HTTPS_PROXY" | "FTP_PROXY" | "NO_PROXY" | "ALL_PROXY" | "SOURCE_DATE_EPOCH"
    ) || matches!(
        name,
        "BUILDKIT_BUILD_NAME"
            | "BUILDKIT_CACHE_MOUNT_NS"
            | "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
            | "BUILDKIT_DOCKERFILE_CHECK"
            | "BUILDKIT_INLINE_CACHE"
            | "BUILDKIT_MULTI_PLATFORM"
            | "BUILDKIT_SANDBOX_HOSTNAME"
            | "BUILDKIT_SYNTAX"
    )
}

/// How an image is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// `compression`: of the layers that are made; without it they stay plain until they are pushed.
    pub compression: Option<Algorithm>,
    /// `force-compression`: of the base image's layers too.
    pub force_compression: bool,
    /// `oci-mediatypes=false`.
    pub docker_types: bool,
    /// `rewrite-timestamp`: refused without `SOURCE_DATE_EPOCH`, which does it.
    pub rewrite_timestamp: Option<bool>,
    /// `annotation…`.
    pub annotations: Vec<Annotation>,
    /// `--provenance`.
    pub provenance: Option<ProvenanceMode>,
    /// `builder-id` of `--provenance`.
    pub builder_id: String,
    /// `--sbom`.
    pub sbom: bool,
}

impl ImageOptions {
    /// Whether something is attested of the image: then there is an index.
    #[must_use]
    pub fn is_attested(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }
}

/// How much is said of where an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// What it was made of, when and where.
    Min,
    /// What the command line said, the Dockerfile and the steps too.
    Max,
}

/// What an annotation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationOf {
    /// The image's manifest.
    Manifest,
    /// The index.
    Index,
    /// The entry of the manifest in the index.
    ManifestDescriptor,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is of.
    pub of: AnnotationOf,
    /// Of this platform's manifest alone.
    pub platform: Option<String>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where a cache of steps is kept besides this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// At a registry, as an image; also one that was built with an inline cache.
    Registry(Reference),
    /// In a directory, as an OCI image layout.
    Local(PathBuf),
    /// In the image that is built.
    Inline,
}

/// `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where to.
    pub place: CachePlace,
    /// Steps of all stages, not only those whose layers the image has.
    pub all: bool,
    /// A failure is a warning.
    pub forgiving: bool,
}

/// What COPY takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// A directory of this host.
    Directory(PathBuf),
    /// Nothing: the Dockerfile came alone.
    Empty,
}

/// `--build-context NAME=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this host.
    Directory(PathBuf),
    /// `docker-image://…`.
    Image(String),
    /// `oci-layout://…`: a directory that holds images, and the one that is meant by its tag or digest.
    Layout(PathBuf, Option<String>),
}

/// A Dockerfile as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileText {
    /// As errors call it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The text of a `.dockerignore` of its own.
    pub ignore: Option<String>,
}

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

/// Not a word of it.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// The image, if one was asked for.
    pub image: Option<Image>,
    /// The root file systems, for outputs that need them, with their platforms.
    pub roots: Vec<(String, super::Snapshot)>,
    /// Steps that touch the file system, and how many of them were there already.
    pub steps: usize,
    /// See `steps`.
    pub cached: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// From the beginning to the end.
    pub took: Duration,
    /// Kept open for as long as the root is needed.
    pub(crate) _lease: super::cache::Shared,
}

/// Something that happens; called from several threads.
pub trait BuildProgress: Sync {
    /// Something happened.
    fn event(&self, event: BuildEvent<'_>);

    /// Whether nobody waits for the build any more: then it ends at the next chance, as one that failed.
    fn is_unwanted(&self) -> bool {
        false
    }
}

/// One thing that happens in a build. Steps are told apart by a number.
#[derive(Debug)]
pub enum BuildEvent<'e> {
    /// A step begins to be looked at.
    Begin {
        /// Its number.
        step: usize,
        /// `[build 2/7] RUN make`.
        title: String,
    },
    /// A line (without its end) that it wrote.
    Line {
        /// Its number.
        step: usize,
        /// What it wrote.
        text: &'e [u8],
    },
    /// An image is being fetched for it.
    Pull {
        /// Its number.
        step: usize,
        /// What happens.
        event: cata_image::Event,
    },
    /// It is done.
    End {
        /// Its number.
        step: usize,
        /// It was there already.
        cached: bool,
        /// How long it took.
        took: Duration,
        /// Why it failed.
        error: Option<String>,
        /// It did not fail by itself: another one did, or nobody waits for it any more.
        cancelled: bool,
    },
}
