//! The health state machine: pure. Probes are started by the driver, their results come in, and what is
//! decided here goes out: the new health, and when to probe again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::launch::{HealthPlan, OnUnhealthy};
use crate::moment::Moment;

/// What Docker shows as `.State.Health.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// No verdict yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// `retries` probes in a row failed.
    Unhealthy,
}

/// A health plan without its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthRules {
    /// See [`HealthPlan::interval`].
    pub interval: Duration,
    /// See [`HealthPlan::timeout`].
    pub timeout: Duration,
    /// See [`HealthPlan::start_period`].
    pub start_period: Duration,
    /// See [`HealthPlan::start_interval`].
    pub start_interval: Duration,
    /// See [`HealthPlan::retries`].
    pub retries: u32,
    /// See [`HealthPlan::on_unhealthy`].
    pub on_unhealthy: OnUnhealthy,
}

impl From<&HealthPlan> for HealthRules {
    fn from(plan: &HealthPlan) -> Self {
        Self {
            interval: plan.interval,
            timeout: plan.timeout,
            start_period: plan.start_period,
            start_interval: plan.start_interval,
            retries: plan.retries.max(1),
            on_unhealthy: plan.on_unhealthy,
        }
    }
}

/// The health of one running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failed probes in a row (those that count).
    pub streak: u32,
    /// When the process started.
    pub since: Moment,
    /// A probe runs now.
    pub probing: bool,
}

impl Health {
    /// The health of a process that just started.
    #[must_use]
    pub fn starting(at: Moment) -> Self {
        Self { status: HealthStatus::Starting, streak: 0, since: at, probing: false }
    }

    /// Time until the next probe. Within the start period, and only until the first success, the start
    /// interval applies.
    #[must_use]
    pub fn wait(&self, rules: &HealthRules, at: Moment) -> Duration {
        let early = self.status == HealthStatus::Starting && at.since(self.since) < rules.start_period;
        let wait = if early { rules.start_interval } else { rules.interval };
        // An interval of zero would probe in a busy loop.
        wait.max(Duration::from_millis(1))
    }

    /// The health after a probe.
    #[must_use]
    pub fn probed(mut self, success: bool, rules: &HealthRules, at: Moment) -> Self {
        self.probing = false;
        if success {
            self.status = HealthStatus::Healthy;
            self.streak = 0;
            return self;
        }
        let forgiven = self.status == HealthStatus::Starting && at.since(self.since) < rules.start_period;
        if !forgiven {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= rules.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::OnUnhealthy;

    fn rules() -> HealthRules {
        HealthRules {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            start_period: Duration::from_secs(10),
            start_interval: Duration::from_secs(2),
            retries: 3,
            on_unhealthy: OnUnhealthy::None,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    #[test]
    fn failures_in_start_period_do_not_count() {
        let health = Health::starting(at(0)).probed(false, &rules(), at(2)).probed(false, &rules(), at(4));
        assert_eq!((health.status, health.streak), (HealthStatus::Starting, 0));
        assert_eq!(health.wait(&rules(), at(4)), Duration::from_secs(2));
        assert_eq!(health.wait(&rules(), at(10)), Duration::from_secs(30));
    }

    #[test]
    fn success_ends_start_period_and_three_failures_make_unhealthy() {
        let mut health = Health::starting(at(0)).probed(true, &rules(), at(2));
        assert_eq!(health.status, HealthStatus::Healthy);
        assert_eq!(health.wait(&rules(), at(2)), Duration::from_secs(30));
        for n in 1..=3 {
            health = health.probed(false, &rules(), at(2 + n));
        }
        assert_eq!((health.status, health.streak), (HealthStatus::Unhealthy, 3));
        assert_eq!(health.probed(true, &rules(), at(9)).status, HealthStatus::Healthy);
    }
}
