//! What can go wrong with a kernel.

use std::path::PathBuf;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about a kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a kernel at all.
    #[error("{0} is not a kernel: neither ELF, a bzImage nor an arm64 Image")]
    NotAKernel(String),
    /// A kernel for hardware that nobody here emulates.
    #[error("{what} is a kernel for {machine}, and only amd64 and arm64 can be booted")]
    Machine {
        /// The file.
        what: String,
        /// What its header says.
        machine: String,
    },
    /// A kernel file cut short, or with a header that lies.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// The file.
        what: String,
        /// How it is seen.
        why: String,
    },
    /// Known, but not read.
    #[error("{what} is compressed with {format}, which is not supported")]
    Compression {
        /// The file.
        what: String,
        /// `bzip2`, `lzo` …
        format: &'static str,
    },
    /// A kernel without the entry that direct boot uses.
    #[error("{0} cannot be booted directly: it was built without PVH (CONFIG_PVH)")]
    NoPvh(String),
    /// A needed driver is neither built in nor a module.
    #[error("the kernel {kernel} has no driver {driver}, neither built in nor as a module")]
    NoDriver {
        /// Its version.
        kernel: String,
        /// The module's name.
        driver: String,
    },
    /// The package is not in the distribution's index.
    #[error("no package {package} for {arch}: {why}")]
    NoPackage {
        /// As asked.
        package: String,
        /// Debian's word for the architecture.
        arch: String,
        /// What apt said.
        why: String,
    },
    /// The package holds no kernel.
    #[error("the package {0} holds no kernel (/boot/vmlinuz-…)")]
    EmptyPackage(String),
    /// A program of the distribution is not there.
    #[error("`{0}` was not found: kernels are taken from Debian's packages")]
    NoProgram(&'static str),
    /// A program failed.
    #[error("`{program}` failed: {why}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said.
        why: String,
    },
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
}

impl Error {
    /// A closure that makes an [`Error::File`] of an I/O error.
    pub(crate) fn file<E: Into<std::io::Error>>(
        op: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File { op, path, source: source.into() }
    }

    /// The way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotAKernel(_) => {
                "give a vmlinux, a bzImage (vmlinuz), an arm64 Image or a linux-image package"
            }
            Self::NoPvh(_) => "distributions' kernels have it: `cata kernel install`",
            Self::NoDriver { .. } => {
                "give the tree of its modules with --modules, or use the distribution's: `cata kernel install`"
            }
            Self::NoPackage { .. } => "look for its name with `apt-cache search linux-image`",
            Self::NoProgram(_) => "on other systems: `cata kernel import FILE`",
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free space, or move the root with --root"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
