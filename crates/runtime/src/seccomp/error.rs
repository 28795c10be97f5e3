//! Why a seccomp profile is refused.

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The text is not Docker's or the OCI's JSON.
    #[error("seccomp profile is not valid")]
    Json(#[from] serde_json::Error),
    /// A value that the format does not know.
    #[error("seccomp profile: `{value}` is not a known {what}")]
    Unknown {
        /// What kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Both the old `architectures` and the new `archMap`, or both `name` and `names`.
    #[error("seccomp profile: `{0}` and `{1}` exclude each other")]
    Both(&'static str, &'static str),
    /// A rule looks at an argument that no call has.
    #[error("seccomp rule for `{syscall}` looks at argument {index}: there are only 0 to 5")]
    Argument {
        /// The rule's first name.
        syscall: String,
        /// The index.
        index: usize,
    },
    /// An errno that does not fit.
    #[error("seccomp rule for `{syscall}` returns {errno}: an error number is at most 4095")]
    Errno {
        /// The rule's first name, or `(default)`.
        syscall: String,
        /// The number.
        errno: u32,
    },
    /// The filter would not fit into the kernel's 4096 instructions.
    #[error("seccomp profile is too large: {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
    /// There is no table of calls for this processor.
    #[error("seccomp filters are not supported on this processor architecture ({0})")]
    Machine(&'static str),
}

impl SeccompError {
    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Json(_) => Some("compare it with Docker's default profile (default.json of moby/profiles)"),
            Self::Machine(_) => Some("run with --security-opt seccomp=unconfined"),
            _ => None,
        }
    }
}
