//! The container's cgroup, or none: what the driver wants of it, in words that can be shown.

use std::time::Duration;

use cata_runtime::Handles;
use cata_runtime::cgroup::{self, Cgroup, CgroupError, CgroupPlan};

use super::finish::chain;

/// How long the last processes may take to leave a cgroup that is to be removed.
const REMOVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Cage {
    cgroup: Option<Cgroup>,
    /// OOM kills before the present process.
    ooms: u64,
    /// Limits that came after those of the launch.
    limits: Option<Box<CgroupPlan>>,
}

impl Cage {
    pub(super) fn create(plan: Option<&CgroupPlan>) -> Result<Self, String> {
        let cgroup = plan.map(cgroup::create).transpose().map_err(|error| explain(&error))?;
        Ok(Self { cgroup, ooms: 0, limits: None })
    }

    /// A fresh one for a process that is started again. Not only for its counters: since Linux 6.14 (and in
    /// stable kernels) a process that is born by `CLONE_INTO_CGROUP` into a cgroup that was killed once is
    /// killed at birth, because its kill count differs from that of its parent's cgroup.
    pub(super) fn renew(&mut self, plan: Option<&CgroupPlan>) -> Result<(), String> {
        self.remove()?;
        let limits = self.limits.take();
        *self = Self::create(plan)?;
        limits.map_or(Ok(()), |limits| self.limit(limits))
    }

    /// Other limits from now on. Between two processes they wait for the next one.
    pub(super) fn limit(&mut self, plan: Box<CgroupPlan>) -> Result<(), String> {
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.update(&plan).map_err(|error| explain(&error))?;
        }
        self.limits = Some(plan);
        Ok(())
    }

    /// What limits the host could not give.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.cgroup.as_ref().map(|cgroup| cgroup.warnings().to_vec()).unwrap_or_default()
    }

    /// A new process is born into it.
    pub(super) fn enter<'a>(&'a self, mut handles: Handles<'a>) -> Handles<'a> {
        handles.cgroup = self.cgroup.as_ref();
        handles
    }

    pub(super) fn started(&mut self) {
        self.ooms = self.count_ooms();
    }

    fn count_ooms(&self) -> u64 {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_events().ok().flatten()).unwrap_or(0)
    }

    pub(super) fn oom_killed(&self) -> bool {
        self.count_ooms() > self.ooms
    }

    pub(super) fn memory_peak(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.peak().ok().flatten())
    }

    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.limit().ok().flatten())
    }

    /// Nothing holds the container's processes together.
    pub(super) fn is_open(&self) -> bool {
        self.cgroup.is_none()
    }

    /// Everybody in it; nobody if that cannot be told.
    pub(super) fn processes(&self) -> Vec<i32> {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.processes().ok()).unwrap_or_default()
    }

    /// Sends SIGKILL to everything; who waits for the end is the machine.
    pub(super) fn kill(&self) -> Result<(), String> {
        self.each(|cgroup| cgroup.kill(Duration::ZERO))
    }

    pub(super) fn freeze(&self) -> Result<(), String> {
        match &self.cgroup {
            Some(cgroup) => cgroup.freeze().map_err(|error| explain(&error)),
            None => Err("the container has no cgroup to be paused by".to_owned()),
        }
    }

    pub(super) fn thaw(&self) -> Result<(), String> {
        self.each(Cgroup::thaw)
    }

    pub(super) fn remove(&mut self) -> Result<(), String> {
        let result = self.each(|cgroup| cgroup.remove(REMOVAL));
        self.cgroup = None;
        result
    }

    fn each(&self, work: impl FnOnce(&Cgroup) -> Result<(), CgroupError>) -> Result<(), String> {
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| work(cgroup).map_err(|error| explain(&error)))
    }
}

fn explain(error: &CgroupError) -> String {
    chain(error)
}
