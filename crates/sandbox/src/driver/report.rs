//! The live state document, built from what the machine and the driver know.

use super::Driver;
use crate::state::{Exit, Phase};
use crate::status::{self, HealthReport, StatusKind};

impl Driver {
    /// Writes `status.json`, and at the end `exit.json`.
    pub(super) fn persist(&mut self) {
        self.refresh();
        let ended = matches!(self.state.phase, Phase::Exited { .. });
        if ended && self.auto_remove {
            // The container is out of the listing, and both directories are on their way out.
            return;
        }
        if let Err(error) = self.status.write(&self.files.state_dir, status::FILE) {
            self.complain(&format!("cannot write the live state: {error}"));
        }
        if ended && let Err(error) = self.status.write(&self.files.container_dir, status::EXIT_FILE) {
            self.complain(&format!("cannot write the exit record: {error}"));
        }
    }

    fn refresh(&mut self) {
        let state = &self.state;
        let status = &mut self.status;
        let mut last: Option<&Exit> = None;
        status.status = match &state.phase {
            Phase::Created | Phase::Starting { first: true, .. } => StatusKind::Created,
            Phase::Starting { first: false, .. } => StatusKind::Restarting,
            Phase::Running { .. } | Phase::Stopping { .. } => StatusKind::Running,
            Phase::Paused { .. } => StatusKind::Paused,
            Phase::Draining { exit, .. } => {
                last = Some(exit);
                StatusKind::Running
            }
            Phase::Backoff { exit, .. } => {
                last = Some(exit);
                StatusKind::Restarting
            }
            Phase::Exited { exit } => {
                last = Some(exit);
                // A container whose first start failed was never anything but created.
                if status.started_at.is_none() { StatusKind::Created } else { StatusKind::Exited }
            }
        };
        status.pid = state.pid().map_or(0, |pid| pid.0);
        match last {
            Some(exit) => {
                status.exit_code = exit.code;
                status.oom_killed = exit.oom;
                status.error.clone_from(&exit.error);
            }
            None => {
                status.exit_code = 0;
                status.oom_killed = false;
                status.error = None;
            }
        }
        status.restart_count = state.restarts;
        status.restart_policy = state.rules.restart;
        status.stopped_by_user = state.stopped_by_user;
        status.log_lost = self.log.as_ref().and_then(|log| log.lost().cloned());
        // After the end the last verdict stays readable.
        if let Some(health) = state.health {
            status.health = Some(HealthReport {
                status: health.status,
                failing_streak: health.streak,
                log: self.probes.log(),
            });
        }
    }
}
