//! What can go wrong with images: small enums by concern, one [`Error`] at the door with a [`Kind`].

use std::io;
use std::path::{Path, PathBuf};

use cata_spec::image::ManifestError;
use cata_spec::platform::PlatformError;
use cata_spec::reference::ReferenceError;
use cata_spec::{Digest, Platform};

/// Everything this room can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A reference as typed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A platform as typed.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// What sort of failure it is, for exit codes and HTTP answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such image, tag or manifest.
    NotFound,
    /// In use, or ambiguous.
    Conflict,
    /// What was typed or given cannot be right.
    Invalid,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// A registry does not answer or answers nonsense.
    Unavailable,
    /// Content does not match its digest, or is damaged.
    Corrupt,
    /// No space left.
    NoSpace,
    /// Everything else of this host.
    System,
}

/// The store on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Docker's words.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The image is there, but not for the platform that was asked for.
    #[error("image {image} is not here for {wanted}, but for {offered}")]
    NoPlatform {
        /// The image.
        image: String,
        /// What was wanted.
        wanted: Platform,
        /// What is there.
        offered: String,
    },
    /// A prefix that fits several ids.
    #[error("image id prefix `{0}` is ambiguous: it fits {1} images")]
    Ambiguous(String, usize),
    /// A container is made of it.
    #[error("conflict: unable to remove `{image}`: container {container} is using it")]
    InUse {
        /// As typed.
        image: String,
        /// Its short id.
        container: String,
    },
    /// Whether a container is made of it.
    #[error("cannot tell who uses `{0}`")]
    Users(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// `rmi ID` of an image with several names.
    #[error("conflict: unable to delete {0} (must be forced): image is referenced in {1} repositories")]
    ManyNames(String, usize),
    /// A digest reference cannot be a tag's target.
    #[error("refusing to create a tag with a digest reference: `{0}`")]
    TagWithDigest(String),
    /// A document of the store cannot be read.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A blob is named by the index but absent.
    #[error("blob {0} is missing from the store")]
    MissingBlob(Digest),
    /// A blob in the store is not what its name says.
    #[error("blob {expected} in the store has digest {actual}")]
    CorruptBlob {
        /// Its name.
        expected: Digest,
        /// Its content.
        actual: Digest,
    },
    /// ENOSPC or EDQUOT.
    #[error("no space left on device while {action} {}", .path.display())]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Any other error of the file system.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Wraps an error of the file system, naming "no space" as such.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_no_space(&source) { Self::NoSpace { action, path } } else { Self::Io { action, path, source } }
    }

    pub(crate) fn damaged(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Damaged { path: path.to_owned(), source: source.into() }
    }
}

/// Whether the system said that nothing more fits.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A registry or the way to it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Docker's words.
    #[error("manifest for {0} not found: manifest unknown")]
    ManifestNotFound(String),
    /// Docker's words; registries hide private repositories this way.
    #[error("{action} access denied for {name}, repository does not exist or may require login")]
    Denied {
        /// What was to be done.
        action: Access,
        /// Registry and repository, as people write them.
        name: String,
    },
    /// The credentials were refused.
    #[error("unauthorized: {registry} refused the credentials for the {action} of {repository}")]
    Unauthorized {
        /// What was to be done.
        action: Access,
        /// The registry's host.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// The index has nothing for the platform.
    #[error("no image for platform {wanted} in {reference}: it offers {offered}")]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        offered: String,
    },
    /// No connection, or it broke too often.
    #[error("cannot reach registry {registry}")]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer other than hoped for.
    #[error("registry {registry} answered {status} to {request}{}", detail(.message))]
    Status {
        /// The registry's host.
        registry: String,
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words.
        message: String,
    },
    /// The content is not what its digest says.
    #[error("{what} from {registry} failed verification: expected digest {expected}, got {actual}")]
    DigestMismatch {
        /// The registry's host.
        registry: String,
        /// `blob`, `manifest`.
        what: &'static str,
        /// Asked for.
        expected: Digest,
        /// Received.
        actual: Digest,
    },
    /// The content is not as long as its descriptor says.
    #[error("blob {digest} from {registry} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The registry's host.
        registry: String,
        /// Which.
        digest: Digest,
        /// Asked for.
        expected: u64,
        /// Received.
        actual: u64,
    },
    /// Not a manifest.
    #[error("manifest of {reference} is not usable")]
    Manifest {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A document larger than any honest one.
    #[error("{what} of {reference} is larger than {limit} bytes")]
    TooLarge {
        /// `manifest`, `configuration`.
        what: &'static str,
        /// The image.
        reference: String,
        /// The limit.
        limit: u64,
    },
    /// Layers that may not be distributed.
    #[error("layer {0} is foreign (non-distributable): it is not on the registry")]
    ForeignLayer(Digest),
    /// A media type this engine cannot unpack.
    #[error("unsupported layer media type `{0}`")]
    LayerType(String),
    /// The configuration file of registries.
    #[error("registry configuration {}: {message}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A login that is wrong.
    #[error("unauthorized: incorrect username or password for {0}")]
    Refused(String),
    /// `docker-credential-*`.
    #[error("credential helper `{program}` failed: {message}")]
    CredentialHelper {
        /// Its name.
        program: String,
        /// Its words.
        message: String,
    },
    /// The token service.
    #[error("token service {realm} failed: {message}")]
    Token {
        /// Its address.
        realm: String,
        /// Its words.
        message: String,
    },
}

/// What a registry is asked to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Writing.
    Push,
}

impl Access {
    /// As the scopes of token services name it: who pushes looks first at what is there.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A layer's content.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The entry would leave the layer's directory.
    #[error("layer entry `{0}` climbs out of the layer")]
    Escapes(String),
    /// The entry makes no sense.
    #[error("layer entry `{entry}`: {reason}")]
    Malformed {
        /// Its name.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Not a tar stream.
    #[error("layer is not a tar stream: {0}")]
    NotTar(&'static str),
    /// The stream ends early.
    #[error("layer is truncated")]
    Truncated,
    /// The compressed stream is damaged.
    #[error("layer cannot be decompressed")]
    Compression(#[source] io::Error),
    /// The uncompressed content is not what the configuration says.
    #[error("layer {expected} has content {actual}")]
    DiffId {
        /// By the image configuration.
        expected: Digest,
        /// By its content.
        actual: Digest,
    },
    /// What a layer is made of cannot be read.
    #[error("cannot read `{entry}`")]
    Source {
        /// Its name.
        entry: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A layer cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// ENOSPC or EDQUOT.
    #[error("no space left on device while unpacking `{0}`")]
    NoSpace(String),
    /// A file of somebody who is not there.
    #[error("`{entry}` belongs to {uid}:{gid}, which the container's user namespace does not map")]
    Unmapped {
        /// Its name.
        entry: String,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The system refused to make the entry.
    #[error("cannot make `{entry}`")]
    Entry {
        /// Its name.
        entry: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl LayerError {
    pub(crate) fn entry(entry: &[u8], source: impl Into<io::Error>) -> Self {
        let (entry, source) = (String::from_utf8_lossy(entry).into_owned(), source.into());
        if is_no_space(&source) { Self::NoSpace(entry) } else { Self::Entry { entry, source } }
    }

    pub(crate) fn source(entry: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Source { entry: String::from_utf8_lossy(entry).into_owned(), source: source.into() }
    }

    pub(crate) fn malformed(entry: &[u8], reason: &'static str) -> Self {
        Self::Malformed { entry: String::from_utf8_lossy(entry).into_owned(), reason }
    }
}

/// An archive given to `load` or `import`, or written by `save`.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither `manifest.json` nor `index.json`.
    #[error("archive holds no image: neither manifest.json nor index.json found")]
    NoImage,
    /// The archive names something that it does not hold.
    #[error("archive lacks `{0}`")]
    Missing(String),
    /// A document in it cannot be read.
    #[error("`{name}` in the archive is not usable: {reason}")]
    Document {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// `--change`.
    #[error("--change `{instruction}`: {reason}")]
    Change {
        /// As typed.
        instruction: String,
        /// What is wrong.
        reason: String,
    },
    /// Reading it.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// Writing it.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Error {
    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => match error {
                StoreError::NoSuchImage(_) | StoreError::NoPlatform { .. } => Kind::NotFound,
                StoreError::Ambiguous(..) | StoreError::InUse { .. } | StoreError::ManyNames(..) => {
                    Kind::Conflict
                }
                StoreError::TagWithDigest(_) => Kind::Invalid,
                StoreError::Damaged { .. } | StoreError::MissingBlob(_) | StoreError::CorruptBlob { .. } => {
                    Kind::Corrupt
                }
                StoreError::NoSpace { .. } => Kind::NoSpace,
                StoreError::Io { .. } | StoreError::Users(..) => Kind::System,
            },
            Self::Registry(error) => match error {
                RegistryError::ManifestNotFound(_)
                | RegistryError::Denied { .. }
                | RegistryError::NoPlatform { .. } => Kind::NotFound,
                RegistryError::Unauthorized { .. }
                | RegistryError::Refused(_)
                | RegistryError::CredentialHelper { .. } => Kind::Unauthorized,
                RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. } => Kind::Corrupt,
                RegistryError::Config { .. } => Kind::Invalid,
                _ => Kind::Unavailable,
            },
            Self::Layer(LayerError::NoSpace(_)) => Kind::NoSpace,
            Self::Layer(LayerError::Write(source)) if is_no_space(source) => Kind::NoSpace,
            Self::Layer(LayerError::Entry { .. } | LayerError::Source { .. } | LayerError::Write(_)) => {
                Kind::System
            }
            Self::Layer(_) => Kind::Corrupt,
            Self::Archive(ArchiveError::Write(source)) if is_no_space(source) => Kind::NoSpace,
            Self::Archive(ArchiveError::Read(_) | ArchiveError::Write(_)) => Kind::System,
            Self::Archive(_) | Self::Reference(_) | Self::Platform(_) => Kind::Invalid,
        }
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Registry(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => {
                Some("log in to the registry, or check the name")
            }
            Self::Registry(RegistryError::NoPlatform { .. }) => {
                Some("choose one of the offered platforms with --platform")
            }
            Self::Registry(RegistryError::Unreachable { .. }) => Some(
                "check the network; a registry without TLS needs `insecure = true` in the configuration file",
            ),
            Self::Store(StoreError::ManyNames(..)) => {
                Some("remove its names one by one, or use --force to remove them all")
            }
            Self::Archive(ArchiveError::NoImage) => Some(
                "`cata load` takes what `cata save` writes; an archive of files becomes an image with `cata import`",
            ),
            Self::Store(StoreError::InUse { .. }) => Some("remove the container first"),
            Self::Store(StoreError::MissingBlob(_) | StoreError::CorruptBlob { .. }) => {
                Some("pull the image again")
            }
            _ if self.kind() == Kind::NoSpace => Some("remove unused images and containers to make room"),
            _ => None,
        }
    }
}
