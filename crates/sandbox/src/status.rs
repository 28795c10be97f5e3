//! The live state as a document: `<state>/<id>/status.json`, written by the supervisor alone, by rename, on
//! tmpfs. Readers never wait for anybody. At the end the same document is `<container>/exit.json`.
//!
//! A supervisor holds a lock on `<state>/<id>/lock` as long as it lives: a document without a lock is what a
//! killed supervisor left.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cata_spec::ContainerId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::health::HealthStatus;
use crate::launch::RestartPolicy;
use crate::stamp::Stamp;

/// Name of the live document in the state directory.
pub const FILE: &str = "status.json";
/// Name of the last document in the container directory.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the lock.
pub const LOCK: &str = "lock";

/// What Docker shows as `.State.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusKind {
    /// Not started yet, or its first start failed.
    Created,
    /// A process runs (or is being stopped).
    Running,
    /// It is frozen.
    Paused,
    /// It ended and will be started again.
    Restarting,
    /// It ended for good.
    Exited,
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whose.
    pub id: ContainerId,
    /// What it is.
    pub status: StatusKind,
    /// The container's first process as the host sees it; 0: none.
    pub pid: i32,
    /// Who wrote this.
    pub supervisor_pid: i32,
    /// When the present or last process started.
    pub started_at: Option<Stamp>,
    /// When the last process ended.
    pub finished_at: Option<Stamp>,
    /// Of the last process; 128+n for signal n.
    pub exit_code: i32,
    /// Why it could not start.
    pub error: Option<String>,
    /// The kernel's OOM killer took a process of the last run.
    pub oom_killed: bool,
    /// Highest memory use of the last run in bytes, read at its end.
    pub memory_peak: Option<u64>,
    /// The memory limit in bytes, read at the end.
    pub memory_limit: Option<u64>,
    /// How often the policy restarted it.
    pub restart_count: u32,
    /// The policy in force (it may have been updated).
    pub restart_policy: RestartPolicy,
    /// A user stopped it: `unless-stopped` leaves it down at boot.
    pub stopped_by_user: bool,
    /// Present when there is a probe.
    pub health: Option<HealthReport>,
    /// What the host could not give (`rlimit nofile 1048576: …`).
    pub withheld: Vec<String>,
    /// The live log file, if there is one.
    pub log_path: Option<PathBuf>,
    /// Output that could not be kept.
    pub log_lost: Option<Lost>,
}

/// The health part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The verdict.
    pub status: HealthStatus,
    /// Failed probes in a row.
    pub failing_streak: u32,
    /// The last five probes, the oldest first.
    pub log: Vec<ProbeReport>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// When it began.
    pub start: Stamp,
    /// When it ended.
    pub end: Stamp,
    /// Of its process; -1 when it was killed at its deadline or could not be started.
    pub exit_code: i32,
    /// The first 4 KiB it wrote.
    pub output: String,
}

/// Output that a log file could not take.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Entries.
    pub lines: u64,
    /// Bytes of output.
    pub bytes: u64,
    /// The last reason.
    pub error: String,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// There is none, or it is not readable.
    #[error("cannot read {path}", path = .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is not one of ours.
    #[error("{path} is not a status document", path = .0.display())]
    Parse(PathBuf, #[source] serde_json::Error),
}

impl StatusError {
    /// There is no document.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read(_, error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads the live document of `<state>/<id>/`.
///
/// # Errors
/// [`StatusError`]; a missing document is [`StatusError::is_not_found`].
pub fn read(state_dir: &Path) -> Result<Status, StatusError> {
    read_file(state_dir.join(FILE))
}

/// Reads the last document of `<root>/containers/<id>/`.
///
/// # Errors
/// As [`read`]. A document torn by a power cut is a parse error: take it as "exited, unknown how".
pub fn read_exit(container_dir: &Path) -> Result<Status, StatusError> {
    read_file(container_dir.join(EXIT_FILE))
}

fn read_file(path: PathBuf) -> Result<Status, StatusError> {
    let text = fs::read(&path).map_err(|e| StatusError::Read(path.clone(), e))?;
    serde_json::from_slice(&text).map_err(|e| StatusError::Parse(path, e))
}

/// Whether a supervisor lives for `<state>/<id>/`.
#[must_use]
pub fn alive(state_dir: &Path) -> bool {
    let Ok(lock) = File::open(state_dir.join(LOCK)) else { return false };
    // A shared lock, so that two readers do not take each other for a supervisor.
    matches!(flock(&lock, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

/// Takes the supervisor's lock. `None`: another supervisor lives.
///
/// # Errors
/// The lock file could not be made.
pub fn lock(state_dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(state_dir.join(LOCK))?;
    // A reader in `alive` holds the lock for a moment: try for a while before giving up.
    for _ in 0..50 {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(2)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

impl Status {
    /// A container that was never started.
    #[must_use]
    pub fn created(id: &ContainerId) -> Self {
        Self {
            id: id.clone(),
            status: StatusKind::Created,
            pid: 0,
            supervisor_pid: 0,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            error: None,
            oom_killed: false,
            memory_peak: None,
            memory_limit: None,
            restart_count: 0,
            restart_policy: RestartPolicy::No,
            stopped_by_user: false,
            health: None,
            withheld: Vec::new(),
            log_path: None,
            log_lost: None,
        }
    }

    /// Replaces the document at `dir/name` at once. No fsync: the state directory is a tmpfs, and a torn
    /// `exit.json` after a power cut says no less than a missing one.
    ///
    /// # Errors
    /// The file could not be written or renamed.
    pub fn write(&self, dir: &Path, name: &str) -> io::Result<()> {
        let temporary = dir.join(format!(".{name}.new"));
        let text = serde_json::to_vec(self)?;
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&temporary, dir.join(name)));
        if written.is_err() {
            // Nothing half-made stays behind; the first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}
