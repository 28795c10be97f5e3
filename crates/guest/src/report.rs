//! What a hypervisor process, or one session of it, and the supervisor tell each other: JSON messages on a
//! SEQPACKET socket.

use serde::{Deserialize, Serialize};

use crate::protocol::Failed;

/// Longest message.
pub const LONGEST: usize = 192 * 1024;

/// What the supervisor is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The process runs in the guest.
    Started {
        /// What the guest could not give.
        withheld: Vec<String>,
        /// What the boot took, of a machine's first process.
        #[serde(default)]
        boot: Option<BootTimes>,
    },
    /// It does not.
    Failed(Failed),
    /// The machine ended before its guest said a word: nothing has happened in it, and another may be made.
    Died(Failed),
    /// What became of a signal.
    Fate {
        /// Its number.
        signal: i32,
        /// The process has no handler and is process 1: the guest's kernel dropped it.
        dropped: bool,
    },
    /// Asked to hold still ([`Word::Pause`]), it does: no processor and no device of it moves.
    Paused,
    /// The process has ended; what it wrote last comes through the streams, and must be taken.
    Exiting,
    /// It has ended; the exit code follows as this process' own.
    Ended {
        /// The guest's OOM killer took a process of the container.
        oom: bool,
        /// The most memory that the container had in the guest.
        peak: Option<u64>,
        /// What went wrong, if the machine ended and not the process.
        error: Option<String>,
    },
}

/// The parts of a boot, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimes {
    /// From the guest's first instruction to the first word of its process 1.
    pub kernel: u64,
    /// From there until files, network and clock are as they should be.
    pub guest: u64,
    /// From there until the container's process runs.
    pub process: u64,
}

/// What the supervisor tells a hypervisor process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Begin. What the machine is made of travels beside it: see [`crate::order::Links`].
    Begin {
        /// [`crate::order::Links`], as the engine wrote it.
        links: Option<serde_json::Value>,
    },
    /// The guest shall have so much memory: at most what it was booted with. It gives up the rest to a balloon, as
    /// far as it can, and takes it back before it kills a process for want of memory.
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// Hold processors and devices where they are, and say so ([`Report::Paused`]).
    Pause,
    /// Let them go on. One that is not held goes on as it does.
    Resume,
    /// Somebody wants to speak to the guest: one end of a stream travels beside it, on which frames are
    /// spoken ([`crate::protocol`]) in which the session is always 1.
    Client,
}
