//! `update`: other limits and another restart policy for a container, running or not.

use std::path::Path;

use cata_runtime::cgroup::{self, CgroupError, CgroupPlan, Layout};
use cata_sandbox::launch::{Isolation, RestartPolicy};

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result, refused};
use crate::ledger;
use crate::plan::resources;
use crate::record::Record;
use crate::request::Resources;

/// What is to be changed; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateRequest {
    /// Limits.
    pub resources: Resources,
    /// `--restart`.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes limits and restart policy. What the kernel refuses is not recorded; what is recorded holds for
    /// later starts too.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; limits that make no sense, or that the kernel refuses.
    pub fn update(&self, container: &str, request: &UpdateRequest) -> Result<()> {
        let found = self.find(container)?;
        let lock = self.lock(&found.id)?;
        let old = self.record(&found.id)?.ok_or_else(|| Error::NoContainer(container.to_owned()))?;
        let mut new = old.clone();
        new.request.resources = merged(&old.request.resources, &request.resources);
        resources::check(&new.request.resources, &self.host)?;
        if let Some(policy) = request.restart {
            if old.request.auto_remove && policy != RestartPolicy::No {
                return Err(Error::Invalid(
                    "a container that is removed when it ends (--rm) has no restart policy".to_owned(),
                ));
            }
            new.request.restart = policy;
        }
        let limits_change = new.request.resources != old.request.resources;
        if old.request.isolation == Isolation::Vm {
            crate::plan::vm::check(&new.request)?;
        }
        // One whose container has ended may still be cleaning up after it.
        let runs = || Ok::<_, Error>(self.settled(&old.id)?.1 == Owner::Alive);
        let client = if runs()? { self.try_client(&old.id)? } else { None };
        if let Some(mut client) = client {
            // What ended meanwhile has its new limits at the next start.
            let told = |outcome| match outcome {
                Err(error) if runs()? => Err(refused("update", old.name.as_str(), &error)),
                _ => Ok(()),
            };
            if limits_change && old.request.isolation == Isolation::Vm {
                self.resize_machine(&old, &new, &mut client)?;
            } else if limits_change {
                let pid = self.status(&old.id)?.0.pid;
                let path = self.cgroup_of(&old, pid, "a change of limits")?;
                told(client.set_limits(limits(&new, &path)?))?;
            }
            if let Some(policy) = request.restart {
                told(client.set_restart(policy))?;
            }
        }
        ledger::write(&self.dir(&old.id).record(), &new, new.durability())?;
        self.tell_container(&new, "update", &[]);
        drop(lock);
        Ok(())
    }
}

/// The limits as writes into the container's cgroup.
fn limits(record: &Record, path: &Path) -> Result<CgroupPlan> {
    let wrap = |e: CgroupError| Error::Runtime(Foreign::new(Kind::Internal, e.hint().map(str::to_owned), &e));
    let oci = resources::oci(&record.request.resources, Vec::new(), &[])?;
    let layout = Layout::detect().map_err(wrap)?;
    cgroup::plan(Some(&oci), &path.to_string_lossy(), &layout).map_err(wrap)
}

/// PURE: the old limits with the new ones over them. What limits processor time one way takes the place of what
/// limited it the other way, and swap that was never spoken of follows memory.
fn merged(old: &Resources, new: &Resources) -> Resources {
    let quota = new.cpu_quota.is_some() || new.cpu_period.is_some();
    Resources {
        memory: new.memory.or(old.memory),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        memory_swap: new.memory_swap.or(old.memory_swap),
        nano_cpus: new.nano_cpus.or(old.nano_cpus.filter(|_| !quota)),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_quota: new.cpu_quota.or(old.cpu_quota.filter(|_| new.nano_cpus.is_none())),
        cpu_period: new.cpu_period.or(old.cpu_period.filter(|_| new.nano_cpus.is_none())),
        cpuset_cpus: new.cpuset_cpus.clone().or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or_else(|| old.cpuset_mems.clone()),
        pids: new.pids.or(old.pids),
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        oom_kill_disable: old.oom_kill_disable,
        swappiness: old.swappiness,
        block: old.block.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_limits_take_the_place_of_what_contradicts_them() {
        let old = Resources { memory: Some(100), cpu_quota: Some(5), pids: Some(7), ..Resources::default() };
        let new = Resources { nano_cpus: Some(1), memory_swap: Some(-1), ..Resources::default() };
        let both = merged(&old, &new);
        assert_eq!((both.memory, both.memory_swap, both.pids), (Some(100), Some(-1), Some(7)));
        assert_eq!((both.nano_cpus, both.cpu_quota), (Some(1), None));
        let back = merged(&both, &Resources { cpu_period: Some(9), ..Resources::default() });
        assert_eq!((back.nano_cpus, back.cpu_period), (None, Some(9)));
    }
}
