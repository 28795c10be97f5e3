//! Why a machine could not be made, and how a running one ended.

use std::io;

use crate::config::ConfigError;

/// Why a machine could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The description is not that of a machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A call to KVM failed.
    #[error("KVM cannot {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// KVM lacks what a machine cannot do without.
    #[error("this KVM cannot do {0}")]
    Lacking(&'static str),
    /// More processors than KVM has room for.
    #[error("this KVM runs at most {most} processors in a virtual machine, not {asked}")]
    TooManyVcpus {
        /// How many were asked for.
        asked: u8,
        /// How many are possible.
        most: usize,
    },
    /// Guest memory could not be had.
    #[error("cannot make {bytes} bytes of guest memory")]
    Memory {
        /// How much was asked for.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// The kernel is of no kind that can be started.
    #[error("the kernel is neither an ELF image with a PVH entry nor a 64-bit bzImage: {0}")]
    Kernel(String),
    /// An initial file system could not be read.
    #[error("cannot read the initial file system")]
    Initramfs(#[source] io::Error),
    /// Kernel and initial file system leave no room.
    #[error(
        "{have} MiB of memory are too small to boot this kernel: it needs {need} MiB before its first process"
    )]
    TooSmall {
        /// Whole mebibytes that the machine has.
        have: u64,
        /// Whole mebibytes that kernel and archives take.
        need: u64,
    },
    /// A device's descriptor is not what it should be.
    #[error("{device}: cannot {what}")]
    Device {
        /// Which.
        device: &'static str,
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl MachineError {
    /// For `map_err` on KVM's own error type.
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> MachineError {
        move |source| MachineError::Kvm { what, source: source.into() }
    }

    pub(crate) fn device(device: &'static str, what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
        move |source| MachineError::Device { device, what, source }
    }
}

/// How a machine ended. The first cause counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reboot; a machine is not started twice.
    Reset,
    /// The guest's kernel panicked, with these words.
    Panic(String),
    /// A processor reached a state it cannot leave (three faults in a row).
    TripleFault,
    /// The file server of this tag went away.
    FileServerLost(String),
    /// KVM gave up on a processor.
    Kvm(String),
    /// Stopped from outside.
    Stopped,
}
