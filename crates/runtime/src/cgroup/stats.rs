//! What a cgroup has used so far.

use serde::{Deserialize, Serialize};

use super::files::field;
use super::{Cgroup, CgroupError, Controller};

/// Use of resources; a part that this machine does not count is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// Block devices.
    pub io: Option<IoStats>,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuStats {
    /// Altogether.
    pub usage: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods with a quota.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time waited for the next period.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Now, with the cache of files.
    pub usage: u64,
    /// The part of `usage` that the kernel can take back at once: Docker shows `usage` less this.
    pub inactive_file: u64,
    /// The most it ever was.
    pub peak: Option<u64>,
    /// `None`: not limited.
    pub limit: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// Tasks: processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// `None`: not limited.
    pub limit: Option<u64>,
}

/// Block devices, since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IoStats {
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// Requests.
    pub reads: u64,
    /// Requests.
    pub writes: u64,
}

/// Version 1 says "no limit" with the largest page-aligned number.
const UNLIMITED_V1: u64 = 0x7fff_ffff_0000_0000;

impl Cgroup {
    /// Everything that is counted.
    ///
    /// # Errors
    /// [`CgroupError::Io`] naming the file.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        Ok(Stats { cpu: self.cpu()?, memory: self.memory()?, pids: self.pids()?, io: self.io()? })
    }

    /// The most memory ever used, in bytes; `None` where the kernel does not tell (version 2 before 5.19).
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn peak(&self) -> Result<Option<u64>, CgroupError> {
        let Some(memory) = self.having(Controller::Memory) else { return Ok(None) };
        let file = if memory.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        Ok(memory.read_if_present(file)?.and_then(|text| text.trim().parse().ok()))
    }

    /// The memory limit in bytes; `None`: not limited.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn limit(&self) -> Result<Option<u64>, CgroupError> {
        let Some(memory) = self.having(Controller::Memory) else { return Ok(None) };
        let file = if memory.unified { "memory.max" } else { "memory.limit_in_bytes" };
        Ok(memory.read_if_present(file)?.and_then(|text| number(&text)))
    }

    fn cpu(&self) -> Result<Option<CpuStats>, CgroupError> {
        let unified = self.directories.iter().find(|open| open.unified);
        let mut cpu = match (unified, self.having(Controller::Cpuacct)) {
            (Some(unified), _) => cpu_v2(&unified.read("cpu.stat")?),
            (None, Some(cpuacct)) => {
                let parse = |text: String| text.trim().parse().unwrap_or_default();
                CpuStats {
                    usage: parse(cpuacct.read("cpuacct.usage")?),
                    user: parse(cpuacct.read("cpuacct.usage_user")?),
                    system: parse(cpuacct.read("cpuacct.usage_sys")?),
                    ..CpuStats::default()
                }
            }
            (None, None) => return Ok(None),
        };
        if let Some(legacy) = self.having(Controller::Cpu).filter(|open| !open.unified) {
            let text = legacy.read("cpu.stat")?;
            cpu.periods = field(&text, "nr_periods").unwrap_or(0);
            cpu.throttled_periods = field(&text, "nr_throttled").unwrap_or(0);
            cpu.throttled = field(&text, "throttled_time").unwrap_or(0);
        }
        Ok(Some(cpu))
    }

    fn memory(&self) -> Result<Option<MemoryStats>, CgroupError> {
        let Some(memory) = self.having(Controller::Memory) else { return Ok(None) };
        let (usage, inactive) = match memory.unified {
            true => ("memory.current", "inactive_file"),
            false => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        // Version 2: the controller could not be enabled.
        let Some(usage) = memory.read_if_present(usage)? else { return Ok(None) };
        Ok(Some(MemoryStats {
            usage: usage.trim().parse().unwrap_or_default(),
            inactive_file: field(&memory.read("memory.stat")?, inactive).unwrap_or(0),
            peak: self.peak()?,
            limit: self.limit()?,
            oom_kills: self.oom_events()?.unwrap_or(0),
        }))
    }

    fn pids(&self) -> Result<Option<PidsStats>, CgroupError> {
        if let Some(pids) = self.having(Controller::Pids)
            && let Some(current) = pids.read_if_present("pids.current")?
        {
            let current = current.trim().parse().unwrap_or_default();
            return Ok(Some(PidsStats { current, limit: number(&pids.read("pids.max")?) }));
        }
        // No limit was asked for, so nobody counts: count the threads' lines.
        let Some(any) = self.directories.first() else { return Ok(None) };
        let file = if any.unified { "cgroup.threads" } else { "tasks" };
        let current = any.read(file)?.lines().count();
        Ok(Some(PidsStats { current: current as u64, limit: None }))
    }

    fn io(&self) -> Result<Option<IoStats>, CgroupError> {
        if let Some(io) = self.having(Controller::Io) {
            return Ok(io.read_if_present("io.stat")?.map(|text| io_v2(&text)));
        }
        let Some(io) = self.having(Controller::Blkio) else { return Ok(None) };
        let bytes = io.read_if_present("blkio.throttle.io_service_bytes_recursive")?.unwrap_or_default();
        let requests = io.read_if_present("blkio.throttle.io_serviced_recursive")?.unwrap_or_default();
        Ok(Some(IoStats {
            read_bytes: sum_v1(&bytes, "Read"),
            written_bytes: sum_v1(&bytes, "Write"),
            reads: sum_v1(&requests, "Read"),
            writes: sum_v1(&requests, "Write"),
        }))
    }
}

/// `max` and version 1's largest number mean "no limit".
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED_V1)
}

fn cpu_v2(text: &str) -> CpuStats {
    let microseconds = |key| field(text, key).unwrap_or(0).saturating_mul(1000);
    CpuStats {
        usage: microseconds("usage_usec"),
        user: microseconds("user_usec"),
        system: microseconds("system_usec"),
        periods: field(text, "nr_periods").unwrap_or(0),
        throttled_periods: field(text, "nr_throttled").unwrap_or(0),
        throttled: microseconds("throttled_usec"),
    }
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …`.
fn io_v2(text: &str) -> IoStats {
    let sum = |key: &str| {
        let words = text.split_ascii_whitespace();
        words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok()).sum()
    };
    IoStats {
        read_bytes: sum("rbytes"),
        written_bytes: sum("wbytes"),
        reads: sum("rios"),
        writes: sum("wios"),
    }
}

/// `8:0 Read 4096`.
fn sum_v1(text: &str, operation: &str) -> u64 {
    let amount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == operation).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(amount).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_both_versions() {
        let cpu =
            cpu_v2("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 3\nthrottled_usec 7\n");
        assert_eq!((cpu.usage, cpu.user, cpu.periods, cpu.throttled), (1_500_000, 1_000_000, 3, 7000));
        let io =
            io_v2("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n");
        assert_eq!(io, IoStats { read_bytes: 15, written_bytes: 20, reads: 2, writes: 2 });
        let v1 = "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n";
        assert_eq!((sum_v1(v1, "Read"), sum_v1(v1, "Write")), (15, 20));
        assert_eq!(number("max\n"), None);
        assert_eq!(number("9223372036854771712\n"), None);
        assert_eq!(number("67108864\n"), Some(67_108_864));
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), Some(2));
    }
}
