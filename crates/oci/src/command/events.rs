//! `events`: what a container uses, and when its memory was not enough.

use std::os::fd::AsFd;

use cata_runtime::cgroup::{Cgroup, Stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::{Command, HELP};
use crate::World;
use crate::args::{Given, switch, value};
use crate::error::{Error, Result};
use crate::store::Status;

pub(super) const COMMAND: Command = Command {
    name: "events",
    words: "ID",
    help: "show what a container uses, as JSON, a line each time",
    flags: &[value("interval", "", "DURATION", "how often (5s)"), switch("stats", "", "once, and end"), HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run,
};

/// `5s`, `500ms`, `1m`.
fn interval(text: &str) -> Result<Timespec> {
    let wrong = || Error::usage(format!("--interval: `{text}` is not a duration like 5s"));
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    let milliseconds = milliseconds.filter(|n| *n > 0).ok_or_else(wrong)?;
    Ok(Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 })
}

fn stats(cgroup: &Cgroup) -> Result<Value> {
    Ok(describe(&cgroup.stats().map_err(|e| Error::chain("statistics", &e))?))
}

fn describe(stats: &Stats) -> Value {
    let mut data = json!({});
    if let Some(cpu) = &stats.cpu {
        data["cpu"] = json!({
            "usage": {"total": cpu.usage, "kernel": cpu.system, "user": cpu.user},
            "throttling": {"periods": cpu.periods, "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled},
        });
    }
    if let Some(memory) = &stats.memory {
        data["memory"] = json!({
            "usage": {"usage": memory.usage, "max": memory.peak.unwrap_or(0),
                "limit": memory.limit.unwrap_or(u64::MAX), "failcnt": 0},
            "raw": {"inactive_file": memory.inactive_file, "oom_kill": memory.oom_kills},
        });
    }
    if let Some(pids) = &stats.pids {
        data["pids"] = json!({"current": pids.current, "limit": pids.limit.unwrap_or(0)});
    }
    if let Some(io) = &stats.io {
        let entry = |operation: &str, value: u64| json!({"op": operation, "value": value});
        data["blkio"] = json!({
            "ioServiceBytesRecursive": [entry("Read", io.read_bytes), entry("Write", io.written_bytes)],
            "ioServicedRecursive": [entry("Read", io.reads), entry("Write", io.writes)],
        });
    }
    data
}

fn run(world: &World, given: &Given) -> Result<u8> {
    let container = world.store.get(super::id(given))?;
    if container.status() == Status::Stopped {
        return Err(Error::new(format!("container with id {} is not running", container.record.id)));
    }
    let cgroup = container.cgroup().ok_or_else(|| Error::new("the container has no cgroup"))?;
    let id = &container.record.id;
    let show = |kind: &str, data: Value| println!("{}", json!({"type": kind, "id": id, "data": data}));
    if given.on("stats") {
        show("stats", stats(&cgroup)?);
        return Ok(0);
    }
    let pause = interval(given.get("interval").unwrap_or("5s"))?;
    let failed = |e: cata_runtime::cgroup::CgroupError| Error::chain("events", &e);
    let watch = cgroup.oom_fd().map_err(failed)?;
    let mut kills = cgroup.oom_events().map_err(failed)?.unwrap_or(0);
    while let Some((_, pidfd)) = container.process() {
        show("stats", stats(&cgroup)?);
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if let Some(watch) = &watch {
            watched.push(PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| poll(&mut watched, Some(&pause)))
            .map_err(|e| Error::new(format!("wait for events: {e}")))?;
        if watched.get(1).is_some_and(|fd| !fd.revents().is_empty())
            && let Some(watch) = &watch
        {
            let mut words = [0u8; 4096];
            let _ = rustix::io::read(watch, &mut words);
        }
        let now = cgroup.oom_events().map_err(failed)?.unwrap_or(kills);
        if now > kills {
            show("oom", Value::Null);
        }
        kills = now;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_gos_simple_durations() {
        assert_eq!(interval("500ms").unwrap().tv_nsec, 500_000_000);
        assert_eq!(interval("2m").unwrap().tv_sec, 120);
        for wrong in ["", "5", "s", "0s", "-1s", "1d", "99999999999999999999s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
