//! What can go wrong in the engine, and which kind of wrong it is.

use std::path::PathBuf;

use cata_sandbox::client::ClientError;
use cata_sandbox::protocol::FailureKind;

/// The result of every verb.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of trouble it is; doors map it to exit codes and HTTP statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The named thing does not exist.
    NotFound,
    /// The name, address or port is taken, or the thing is in use.
    Conflict,
    /// What was asked makes no sense.
    InvalidArgument,
    /// The thing is in a state in which this cannot be done.
    InvalidState,
    /// The caller or the host does not permit it.
    Denied,
    /// The registry wants other credentials.
    Unauthenticated,
    /// Not on this host, or not yet in this engine.
    Unsupported,
    /// Space, addresses or processes ran out.
    Exhausted,
    /// Somebody we need does not answer.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// The container's command cannot be started; carries Docker's exit code (126 or 127).
    Command(u8),
    /// Our own fault.
    Internal,
}

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container by that id, prefix or name.
    #[error("No such container: {0}")]
    NoContainer(String),
    /// No machine by that name.
    #[error("no such machine: {0}")]
    NoMachine(String),
    /// Nothing at all by that name.
    #[error("No such object: {0}")]
    NoObject(String),
    /// A prefix that fits several containers.
    #[error("container id prefix `{0}` is ambiguous: {1} containers match")]
    Ambiguous(String, usize),
    /// Name taken.
    #[error("Conflict. The container name \"/{name}\" is already in use by container \"{owner}\"")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// Nothing at a path of a container.
    #[error("could not find the file {path} in container {container}")]
    NoPath {
        /// The path.
        path: String,
        /// The container.
        container: String,
    },
    /// No volume by that name.
    #[error("No such volume: {0}")]
    NoVolume(String),
    /// Volume used by containers.
    #[error("volume {name} is in use by {users}")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Containers, comma separated.
        users: String,
    },
    /// No description of a device by that name.
    #[error("no such device: {name}")]
    NoDevice {
        /// `vendor.com/class=name`.
        name: String,
        /// The way out.
        hint: String,
    },
    /// No kernel by that name.
    #[error("no such kernel: {0}")]
    NoKernel(String),
    /// None is named, and none is the default.
    #[error("no kernel for {0} is installed")]
    NoDefaultKernel(&'static str),
    /// A program that belongs to the engine is not where it should be.
    #[error("the program {0} was not found beside cata")]
    NoCompanion(String),
    /// Wrong by itself, whatever the host.
    #[error("{0}")]
    Invalid(String),
    /// Asked for something that is not there yet, or not on this host.
    #[error("{what}")]
    Unsupported {
        /// What, as a sentence.
        what: String,
        /// The way out.
        hint: String,
    },
    /// In a state in which this cannot be done.
    #[error("{what}")]
    State {
        /// What, as a sentence.
        what: String,
        /// The way out.
        hint: Option<String>,
    },
    /// Not root.
    #[error("permission denied: {0}")]
    Denied(String),
    /// A bind mount's source is missing.
    #[error("invalid mount: bind source path does not exist: {}", .0.display())]
    NoMountSource(PathBuf),
    /// The command could not be started.
    #[error("cannot start container {name}: {message}")]
    Start {
        /// The container's name.
        name: String,
        /// 125, 126 or 127.
        exit_code: u8,
        /// What the runtime said.
        message: String,
        /// The way out, where one is known.
        hint: Option<String>,
    },
    /// A deadline passed.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// A file operation.
    #[error("{op} {}", path.display())]
    File {
        /// What was being done.
        op: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A record that cannot be read.
    #[error("record {} is damaged", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The image room.
    #[error("{0}")]
    Image(#[source] Foreign),
    /// The network room.
    #[error("{0}")]
    Network(#[source] Foreign),
    /// The sandbox room.
    #[error("{0}")]
    Sandbox(#[source] Foreign),
    /// The runtime's planner.
    #[error("{0}")]
    Runtime(#[source] Foreign),
    /// A build.
    #[error(transparent)]
    Build(Box<crate::build::BuildError>),
    /// The kernel room.
    #[error("{0}")]
    Kernel(#[source] Foreign),
}

impl From<cata_kernel::Error> for Error {
    fn from(error: cata_kernel::Error) -> Self {
        use cata_kernel::Error as E;
        let kind = match &error {
            E::NoPackage { .. } => Kind::NotFound,
            E::NoProgram(_)
            | E::Compression { .. }
            | E::Machine { .. }
            | E::NoPvh(_)
            | E::NoDriver { .. } => Kind::Unsupported,
            E::NotAKernel(_) | E::Damaged { .. } | E::EmptyPackage(_) => Kind::InvalidArgument,
            E::Program { .. } => Kind::Unavailable,
            E::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Kind::Exhausted,
            E::File { .. } => Kind::Internal,
        };
        Self::Kernel(Foreign::new(kind, error.hint(), &error))
    }
}

/// Another room's error, with what the engine says about it.
#[derive(Debug)]
pub struct Foreign {
    /// Its kind here.
    pub kind: Kind,
    /// Its way out.
    pub hint: Option<String>,
    /// The whole text, sources included.
    text: String,
}

impl Foreign {
    /// Takes another room's error; its chain of sources becomes one line.
    pub fn new(kind: Kind, hint: Option<String>, error: &dyn std::error::Error) -> Self {
        Self { kind, hint, text: chain(error) }
    }
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Foreign {}

/// An error and its sources as one line, `a: b: c`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

impl Error {
    /// A closure that makes a [`Error::File`] of an I/O error.
    pub(crate) fn file<E: Into<std::io::Error>>(
        op: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File { op, path, source: source.into() }
    }

    /// What kind of trouble this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoContainer(_)
            | Self::NoObject(_)
            | Self::NoPath { .. }
            | Self::NoVolume(_)
            | Self::NoMachine(_)
            | Self::NoDevice { .. }
            | Self::NoKernel(_) => Kind::NotFound,
            Self::NoDefaultKernel(_) => Kind::InvalidState,
            Self::NoCompanion(_) => Kind::Unsupported,
            Self::Ambiguous(..) | Self::Invalid(_) | Self::NoMountSource(_) => Kind::InvalidArgument,
            Self::NameInUse { .. } | Self::VolumeInUse { .. } => Kind::Conflict,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::State { .. } => Kind::InvalidState,
            Self::Denied(_) => Kind::Denied,
            Self::Start { exit_code: code @ (126 | 127), .. } => Kind::Command(*code),
            Self::Start { .. } | Self::Record { .. } => Kind::Internal,
            Self::Timeout(_) => Kind::Timeout,
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => Kind::Denied,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Exhausted,
                _ => Kind::Internal,
            },
            Self::Image(e) | Self::Network(e) | Self::Sandbox(e) | Self::Runtime(e) | Self::Kernel(e) => {
                e.kind
            }
            Self::Build(e) => e.kind,
        }
    }

    /// The way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { hint, .. } | Self::NoDevice { hint, .. } => Some(hint.clone()),
            Self::State { hint, .. } | Self::Start { hint, .. } => hint.clone(),
            Self::NameInUse { name, .. } => {
                Some(format!("remove it with `cata rm {name}`, rename it, or choose another --name"))
            }
            Self::Denied(_) => Some("run it as root (sudo)".to_owned()),
            Self::NoMountSource(_) => {
                Some("create it, or use -v, which creates missing directories".to_owned())
            }
            Self::Ambiguous(..) => Some("give more characters of the id".to_owned()),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free space, or move the root with --root".to_owned())
            }
            Self::Image(e) | Self::Network(e) | Self::Sandbox(e) | Self::Runtime(e) | Self::Kernel(e) => {
                e.hint.clone()
            }
            Self::NoKernel(_) => Some("list them with `cata kernel ls`".to_owned()),
            Self::NoDefaultKernel("amd64") => {
                Some("take the distribution's: `cata kernel install`".to_owned())
            }
            Self::NoDefaultKernel(arch) => {
                Some(format!("take the distribution's: `cata kernel install --platform linux/{arch}`"))
            }
            Self::NoCompanion(name) if name.starts_with("cata-guest-") => {
                let arch = name.trim_start_matches("cata-guest-");
                Some(format!("`cargo xtask build --{arch}` builds it; it belongs beside cata"))
            }
            Self::NoCompanion(_) => {
                Some("install it there; `cargo xtask build` builds all of them".to_owned())
            }
            Self::Build(e) => e.hint.clone(),
            _ => None,
        }
    }
}

/// What a supervisor does not do in the state its container is in, with the container's name.
pub(crate) fn refused(verb: &str, container: &str, error: &ClientError) -> Error {
    match client_error(verb, error) {
        Error::State { what, hint } => {
            Error::State { what: format!("cannot {verb} container {container}: {what}"), hint }
        }
        error => error,
    }
}

/// A supervisor's answer as the engine's error.
pub(crate) fn client_error(what: &str, error: &ClientError) -> Error {
    let (kind, hint) = match error {
        ClientError::Failed(failure) => {
            let kind = match failure.kind {
                FailureKind::State | FailureKind::Ending => {
                    return Error::State { what: failure.message.clone(), hint: failure.hint.clone() };
                }
                FailureKind::NotFound => Kind::NotFound,
                FailureKind::Invalid => Kind::InvalidArgument,
                FailureKind::Start => match u8::try_from(failure.exit_code) {
                    Ok(code @ (126 | 127)) => Kind::Command(code),
                    _ => Kind::Internal,
                },
                FailureKind::Exhausted => Kind::Exhausted,
                FailureKind::Undying | FailureKind::System => Kind::Internal,
            };
            (kind, failure.hint.clone())
        }
        ClientError::Timeout(_) => return Error::Timeout(format!("{what}: the container's supervisor")),
        ClientError::NotRunning(_) | ClientError::Gone => {
            return Error::State { what: "container is not running".to_owned(), hint: None };
        }
        ClientError::Io(_) | ClientError::Protocol => (Kind::Internal, None),
    };
    Error::Sandbox(Foreign::new(kind, hint, error))
}
