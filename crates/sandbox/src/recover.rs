//! What a killed supervisor left, and doing it in its place.
//!
//! A supervisor records in `<state>/<id>/undo.json` what is to be undone, before it starts anything. When
//! it is killed its container dies with it (the kernel sees to that: parent death signal), but names, ports,
//! cgroups and trees remain: whoever next looks at the container calls [`recover`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_runtime::cgroup::{Cgroup, CgroupError, CgroupPlan};
use serde::{Deserialize, Serialize};

use crate::launch::Undo;
use crate::stamp::Stamp;
use crate::status::{self, Status, StatusKind};
use crate::undo;

/// Name of the record in the state directory.
pub const FILE: &str = "undo.json";
/// How long the dead supervisor's processes may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Remains {
    pub(crate) undo: Vec<Undo>,
    pub(crate) undo_late: Vec<Undo>,
    pub(crate) cgroup: Option<CgroupPlan>,
}

impl Remains {
    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let temporary = state_dir.join(".undo.json.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(&temporary, state_dir.join(FILE))
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Recovered {
    /// A supervisor lives (or another process recovers): nothing was touched.
    Alive,
    /// Nothing was left.
    Nothing,
    /// Its container is `Exited` (137) now, and what it held is given back; these steps could not be done.
    Undone(Vec<String>),
}

/// Finishes what a killed supervisor could not. Idempotent, and safe beside others who do the same.
///
/// # Errors
/// The state directory cannot be locked or read.
pub fn recover(state_dir: &Path, container_dir: &Path) -> io::Result<Recovered> {
    if !state_dir.exists() {
        return Ok(Recovered::Nothing);
    }
    let Some(_lock) = status::lock(state_dir)? else { return Ok(Recovered::Alive) };
    let record = state_dir.join(FILE);
    let remains: Remains = match fs::read(&record) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recovered::Nothing),
        Err(error) => return Err(error),
    };
    let mut failed = Vec::new();
    if let Some(plan) = &remains.cgroup {
        match Cgroup::open(plan) {
            Ok(cgroup) => {
                let gone = cgroup.kill(PATIENCE).and_then(|()| cgroup.remove(PATIENCE));
                failed.extend(gone.err().map(|error| error.to_string()));
            }
            Err(CgroupError::Missing(_)) => {}
            Err(error) => failed.push(error.to_string()),
        }
    }
    failed.extend(undo::perform(&remains.undo).iter().map(ToString::to_string));
    if let Ok(status) = status::read(state_dir) {
        let ended = as_killed(status);
        if container_dir.exists()
            && let Err(error) = ended.write(container_dir, status::EXIT_FILE)
        {
            failed.push(error.to_string());
        }
        if let Err(error) = ended.write(state_dir, status::FILE) {
            failed.push(error.to_string());
        }
    }
    failed.extend(undo::perform(&remains.undo_late).iter().map(ToString::to_string));
    // Last: until here everything can be done once more.
    fs::remove_file(&record)?;
    Ok(Recovered::Undone(failed))
}

/// What the dead supervisor would have written.
fn as_killed(mut status: Status) -> Status {
    if status.status != StatusKind::Exited {
        status.status = StatusKind::Exited;
        status.pid = 0;
        status.exit_code = 137;
        status.error = Some("its supervisor was killed".to_owned());
        status.finished_at = Some(Stamp::now());
    }
    status
}

/// A cgroup plan without what is needed only to make it.
pub(crate) fn bare(plan: &CgroupPlan) -> CgroupPlan {
    CgroupPlan { writes: Vec::new(), devices: None, ..plan.clone() }
}

/// Where the record is.
#[must_use]
pub fn record(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}
