//! The host goes up and down: which containers go with it.
//!
//! At a shutdown a supervisor that is asked to end (SIGTERM) stops its container politely and does not note it
//! as stopped by a user; one that is killed notes nothing. So what is to be started at the next boot can be
//! read from what is on disk, and nothing has to be prepared for a power cut.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use cata_sandbox::status::{self, Status};

use crate::container::live::{Owner, RAN_FILE, is_concerned};
use crate::container::start::StartOptions;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::request::{NamespaceMode, NetworkMode, RestartPolicy};
use crate::timing::Timing;

/// What the process may take to end after its stop signal and SIGKILL were sent.
const AFTERMATH: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts the containers that were running when the host went down and whose policy is `always` or
    /// `unless-stopped`, and those with `always` that a user had stopped (as Docker does). `each` hears of
    /// every one.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub fn start_at_boot(&self, each: impl Fn(&Record, Result<()>) + Sync) -> Result<()> {
        let mut waiting: Vec<Record> = Vec::new();
        for record in self.readable_records()? {
            let (status, owner) = self.status(&record.id)?;
            let ran = self.paths.container(&record.id).join(RAN_FILE).exists();
            if owner != Owner::Alive && ran && is_due(record.request.restart, &status) {
                waiting.push(record);
            }
        }
        let (joining, free): (Vec<_>, Vec<_>) = waiting.into_iter().partition(joins_another);
        self.all_at_once(&free, |engine, record| each(record, engine.start_one(record)));
        // Those that share a namespace wait for whose it is; those that cannot be started now never can.
        let mut waiting = joining;
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut failed = Vec::new();
            for record in waiting {
                match self.start_one(&record) {
                    Err(error) => failed.push((record, error)),
                    done => each(&record, done),
                }
            }
            if failed.len() == before {
                failed.into_iter().for_each(|(record, error)| each(&record, Err(error)));
                break;
            }
            waiting = failed.into_iter().map(|(record, _)| record).collect();
        }
        Ok(())
    }

    /// Stops every running container, each as politely as it was told to be stopped, and leaves those with a
    /// restart policy to the next boot. `each` hears of every one.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub fn stop_for_shutdown(&self, each: impl Fn(&Record, Result<()>) + Sync) -> Result<()> {
        let mut running = Vec::new();
        for record in self.readable_records()? {
            if self.status(&record.id)?.1 == Owner::Alive {
                running.push(record);
            }
        }
        self.all_at_once(&running, |engine, record| each(record, engine.stop_one(record)));
        Ok(())
    }

    fn start_one(&self, record: &Record) -> Result<()> {
        self.start(record, StartOptions::default(), &mut Timing::default()).map(|_| ())
    }

    fn stop_one(&self, record: &Record) -> Result<()> {
        let live = self.paths.live(&record.id);
        let patience = record.config.stop_timeout.map(|seconds| Duration::from_secs(seconds) + AFTERMATH);
        let start = Instant::now();
        let mut asked = false;
        while status::alive(&live) {
            if !asked {
                asked = terminate(&status::read(&live).ok())?;
            }
            if patience.is_some_and(|patience| start.elapsed() > patience) {
                return Err(Error::Timeout(format!("container {} to end", record.name)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts and stops mostly wait: more of them than processors.
    fn all_at_once(&self, records: &[Record], act: impl Fn(&Self, &Record) + Sync) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let threads = (self.host.cpus as usize * 4).min(records.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(record) =
                        records.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        act(self, record);
                    }
                });
            }
        });
    }
}

/// PURE: whether a container that has run before is to be started at a boot.
fn is_due(policy: RestartPolicy, status: &Status) -> bool {
    is_concerned(policy) && (policy == RestartPolicy::Always || !status.stopped_by_user)
}

fn joins_another(record: &Record) -> bool {
    let request = &record.request;
    let other = |mode: &NamespaceMode| matches!(mode, NamespaceMode::Container(_));
    matches!(request.network, NetworkMode::Container(_))
        || [&request.pid, &request.ipc, &request.uts, &request.cgroupns].into_iter().any(other)
}

/// Asks a supervisor to end; false when it has not said yet who it is.
fn terminate(status: &Option<Status>) -> Result<bool> {
    let Some(pid) = status.as_ref().and_then(|status| Pid::from_raw(status.supervisor_pid)) else {
        return Ok(false);
    };
    let failed = |errno: rustix::io::Errno| Error::Denied(format!("stop supervisor {pid:?}: {errno}"));
    match pidfd_open(pid, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(fd, Signal::TERM)) {
        // Gone between two looks.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(true),
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_due_follows_the_policy_and_the_users_last_word() {
        let id = crate::container::names::random_id();
        let status = |stopped_by_user| Status { stopped_by_user, ..Status::created(&id) };
        let due = |policy| [false, true].map(|stopped| is_due(policy, &status(stopped)));
        assert_eq!(due(RestartPolicy::Always), [true, true]);
        assert_eq!(due(RestartPolicy::UnlessStopped), [true, false]);
        assert_eq!(due(RestartPolicy::No), [false; 2]);
        assert_eq!(due(RestartPolicy::OnFailure { max: None }), [false; 2]);
    }
}
