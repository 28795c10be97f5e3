//! What the host asks about the guest, from the guest's `/proc`.

use std::fs;

use cata_guest::protocol::RawProcess;
use cata_guest::protocol::{Ask, Told};
use cata_runtime::cgroup::Cgroup;

/// So many processes are told at most.
const MOST: usize = 1000;
/// And so much of a command line.
const LONGEST: usize = 512;

/// `first`: the container's first process.
pub(crate) fn tell(ask: Ask, cgroup: Option<&Cgroup>, first: Option<i32>) -> Told {
    let pids = match cgroup.map(Cgroup::processes) {
        Some(Ok(pids)) => pids,
        Some(Err(error)) => return Told::Unknown(error.to_string()),
        None => Vec::new(),
    };
    let counted = cgroup.and_then(|cgroup| cgroup.stats().ok()?.pids);
    match ask {
        Ask::View => match first.map(cata_guest::view::of) {
            Some(Ok(view)) => Told::View(view),
            Some(Err(error)) => Told::Unknown(error.to_string()),
            None => Told::Unknown("the container's first process has ended".to_owned()),
        },
        Ask::Processes => Told::Processes {
            list: pids.into_iter().take(MOST).filter_map(process).collect(),
            boot: boot(),
            memory: memory("MemTotal:"),
            ticks: rustix::param::clock_ticks_per_second(),
        },
        Ask::Usage => Told::Usage {
            memory_total: memory("MemTotal:"),
            memory_used: memory("MemTotal:").saturating_sub(memory("MemAvailable:")),
            processes: counted.map_or(u64::try_from(pids.len()).unwrap_or(0), |pids| pids.current),
            most_processes: counted.and_then(|pids| pids.limit),
            traffic: traffic(&fs::read_to_string("/proc/net/dev").unwrap_or_default()),
        },
    }
}

/// `None`: it ended meanwhile.
fn process(pid: i32) -> Option<RawProcess> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut cmdline = read("cmdline")?;
    cmdline.truncate(LONGEST);
    // The kernel's own lines are short; of `status` only the first are of use.
    let mut status = read("status")?;
    status.truncate(LONGEST);
    Some(RawProcess { pid, stat: text(read("stat")?), status: text(status), cmdline: text(cmdline) })
}

fn boot() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

fn traffic(text: &str) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold((0, 0), |(received, sent), (_, counters)| {
        let at =
            |index| counters.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        (received + at(0), sent + at(8))
    })
}

fn memory(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
