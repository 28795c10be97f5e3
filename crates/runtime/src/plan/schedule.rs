//! Scheduling, I/O priority, CPU affinity, memory policy, personality, clocks.

use cata_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use super::error::PlanError;

/// How the kernel schedules the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Class and level of I/O priority, in the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct IoPriority {
    pub class: u16,
    pub level: u16,
}

/// Where the process's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` and its flags.
    pub mode: i32,
    /// Nodes as bits.
    pub nodes: Vec<u64>,
}

/// How far a clock of a new time namespace is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    #[allow(missing_docs)]
    pub seconds: i64,
    #[allow(missing_docs)]
    pub nanoseconds: u32,
}

pub(super) fn scheduler(spec: &oci::Scheduler) -> Result<Scheduler, PlanError> {
    use oci::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};
    let wrong = |reason: &str| PlanError::Scheduler(reason.to_owned());
    let policy = match spec.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => return Err(wrong("Linux has no policy SCHED_ISO")),
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let real_time = matches!(policy, 1 | 2);
    let priority = spec.priority().unwrap_or(0);
    if priority != 0 && !real_time {
        return Err(wrong("a priority needs SCHED_FIFO or SCHED_RR"));
    }
    let (runtime, deadline, period) = (
        spec.runtime().unwrap_or_default(),
        spec.deadline().unwrap_or_default(),
        spec.period().unwrap_or_default(),
    );
    if (runtime, deadline, period) != (0, 0, 0) && policy != 6 {
        return Err(wrong("runtime, deadline and period need SCHED_DEADLINE"));
    }
    let nice = spec.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(wrong("nice is between -20 and 19"));
    }
    Ok(Scheduler {
        policy,
        flags: spec.flags().iter().flatten().map(flag).fold(0, |flags, flag| flags | flag),
        nice,
        priority: u32::try_from(priority).map_err(|_| wrong("a priority is not negative"))?,
        runtime,
        deadline,
        period,
    })
}

pub(super) fn io_priority(spec: &oci::LinuxIOPriority) -> Result<IoPriority, PlanError> {
    let class = match spec.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(spec.priority()).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| PlanError::Scheduler("an I/O priority is between 0 and 7".to_owned()))?;
    Ok(IoPriority { class, level })
}

pub(super) fn memory_policy(spec: &oci::LinuxMemoryPolicy) -> Result<MemoryPolicy, PlanError> {
    use oci::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let mode = match spec.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::MpolFStaticNodes => 1 << 15,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFNumaBalancing => 1 << 13,
    };
    let flags: i32 = spec.flags().iter().flatten().map(flag).fold(0, |flags, flag| flags | flag);
    let mut nodes = Vec::new();
    for node in list(spec.nodes().as_deref().unwrap_or_default())? {
        let (word, bit) = (node / 64, node % 64);
        if nodes.len() <= word {
            nodes.resize(word + 1, 0u64);
        }
        nodes[word] |= 1 << bit;
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// `0-3,7` as numbers.
pub(crate) fn list(text: &str) -> Result<Vec<usize>, PlanError> {
    const MOST: usize = 8192;
    let wrong = || PlanError::List(text.to_owned());
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= MOST {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// Its number, as the kernel has it.
///
/// # Errors
/// Flags, which no domain has yet.
pub fn personality(spec: &oci::LinuxPersonality) -> Result<u32, PlanError> {
    if spec.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(PlanError::Unsupported("a personality flag"));
    }
    Ok(match spec.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

pub(super) fn time_offsets(linux: &oci::Linux) -> Result<Vec<TimeOffset>, PlanError> {
    let mut offsets = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return Err(PlanError::Clock(clock.clone()));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        offsets.push(TimeOffset { clock: clock.clone(), seconds, nanoseconds });
    }
    offsets.sort_by(|a, b| a.clock.cmp(&b.clock));
    Ok(offsets)
}
