//! `stats`: what a running container uses, from its cgroups and its network's counters. Nobody is asked.

use std::time::Instant;

use cata_guest::protocol::{Ask, Told};
use cata_runtime::cgroup::{self, Cgroup, CgroupError, Layout, PidsStats, Stats};
use cata_sandbox::status::StatusKind;

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::host::Facts;
use crate::record::Record;
use crate::request::NetworkMode;

/// What a container uses at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// When it was read.
    pub at: Instant,
    /// What its cgroups count; empty when it does not run.
    pub stats: Stats,
    /// Bytes received and sent by its interfaces, loopback aside.
    pub network: (u64, u64),
    /// Bytes of memory it can have: its limit, or all that the host has.
    pub memory_limit: u64,
}

impl Engine {
    /// What a container uses now; nothing of one that does not run.
    ///
    /// # Errors
    /// Its cgroups cannot be read.
    pub fn usage(&self, record: &Record) -> Result<Usage> {
        let mut usage =
            Usage { at: Instant::now(), stats: Stats::default(), network: (0, 0), memory_limit: 0 };
        let (status, owner) = self.status(&record.id)?;
        if owner != Owner::Alive || !matches!(status.status, StatusKind::Running | StatusKind::Paused) {
            return Ok(usage);
        }
        let wrap =
            |e: CgroupError| Error::Runtime(Foreign::new(Kind::Internal, e.hint().map(str::to_owned), &e));
        let path = self.cgroup_of(record, status.pid, "a count of what a container uses")?;
        let layout = Layout::detect().map_err(wrap)?;
        let plan = cgroup::plan(None, &path.to_string_lossy(), &layout).map_err(wrap)?;
        let read = Cgroup::open(&plan).and_then(|cgroup| cgroup.stats());
        usage.at = Instant::now();
        usage.stats = match read {
            Ok(stats) => stats,
            // Ended between two looks.
            Err(_) if self.status(&record.id)?.1 != Owner::Alive => return Ok(usage),
            Err(error) => return Err(wrap(error)),
        };
        if let Some(machine) = self.machine_facts(record) {
            // What the guest has not said is not shown; how much it is, is what the host counts.
            usage.stats.pids = None;
            if let Ok(Told::Usage { traffic, processes, most_processes, .. }) =
                self.ask_guest(record, Ask::Usage)
            {
                usage.network = traffic;
                usage.stats.pids = Some(PidsStats { current: processes, limit: most_processes });
            }
            usage.memory_limit = machine.memory;
            return Ok(usage);
        }
        // In the host's network the counters are the host's, not the container's.
        if record.request.network != NetworkMode::Host {
            let counters = std::fs::read_to_string(format!("/proc/{}/net/dev", status.pid));
            usage.network = traffic(&counters.unwrap_or_default());
        }
        let all = Facts::read().memory;
        let limit = usage.stats.memory.and_then(|memory| memory.limit);
        usage.memory_limit = limit.map_or(all, |limit| limit.min(all));
        Ok(usage)
    }

    /// Every container's record, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn records_newest_first(&self) -> Result<Vec<Record>> {
        let mut records = self.readable_records()?;
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        Ok(records)
    }
}

/// PURE: bytes received and sent, of `/proc/<pid>/net/dev`.
fn traffic(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if name.trim() != "lo"
            && let (Some(received), Some(sent)) = (counters.first(), counters.get(8))
        {
            sum = (sum.0 + received, sum.1 + sent);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::traffic;

    #[test]
    fn traffic_sums_interfaces_but_not_loopback() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                      eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  odd: 1\n";
        assert_eq!(traffic(text), (105, 27));
        assert_eq!(traffic(""), (0, 0));
    }
}
