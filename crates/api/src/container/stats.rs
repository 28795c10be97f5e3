//! `GET /containers/{id}/stats`: what a container uses, once or every second.

use std::time::Duration;

use cata_engine::container::stats::Usage;
use cata_engine::record::Record;
use cata_engine::{Engine, Stamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::call::{Answer, Call, Output};
use crate::refusal::Outcome;
use crate::shared::Shared;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn stats(server: &Shared, call: &Call, id: &str) -> Outcome<Answer> {
    let record = server.engine.find(id)?;
    let stream = call.word("stream").is_none() || call.flag("stream");
    let one_shot = call.flag("one-shot");
    let first = server.engine.usage(&record)?;
    let server = Shared::clone(server);
    Answer::lines(move |output| {
        let mut before: Option<(Look, Stamp)> = None;
        let mut now = (look(first), Stamp::now());
        loop {
            // Whoever asks once wants to know what was used in a second, unless he says that he does not.
            if stream || one_shot || before.is_some() {
                let document = document(&record, before.as_ref(), &now);
                if output.line(&document).is_err() || !stream {
                    return;
                }
            }
            if !wait(output) {
                return;
            }
            let Some(next) = usage(&server.engine, &record) else { return };
            before = Some(std::mem::replace(&mut now, (look(next), Stamp::now())));
        }
    })
}

/// False: the client has gone.
fn wait(output: &Output) -> bool {
    let mut fds = [PollFd::new(&output.gone, PollFlags::IN)];
    let span = Timespec { tv_sec: i64::try_from(INTERVAL.as_secs()).unwrap_or(1), tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&span)), Ok(1..))
}

/// `None` when it has gone.
fn usage(engine: &Engine, record: &Record) -> Option<Usage> {
    engine.find(record.id.as_str()).ok()?;
    engine.usage(record).ok()
}

/// A look at a container, and what the host's processors did until then.
struct Look {
    usage: Usage,
    host: u64,
}

fn look(usage: Usage) -> Look {
    Look { usage, host: host_nanos(&std::fs::read_to_string("/proc/stat").unwrap_or_default()) }
}

/// PURE: nanoseconds of all processors, idle ones too, of a hundred ticks a second.
fn host_nanos(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    // What guests use is in the first two already.
    let ticks: u64 =
        line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

fn cpu(look: &Look, cpus: usize) -> Value {
    let cpu = look.usage.stats.cpu.unwrap_or_default();
    json!({
        "cpu_usage": {
            "total_usage": cpu.usage, "usage_in_kernelmode": cpu.system, "usage_in_usermode": cpu.user,
        },
        "system_cpu_usage": look.host,
        "online_cpus": cpus,
        "throttling_data": {
            "periods": cpu.periods, "throttled_periods": cpu.throttled_periods, "throttled_time": cpu.throttled,
        },
    })
}

fn document(record: &Record, before: Option<&(Look, Stamp)>, (now, at): &(Look, Stamp)) -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = now.usage.stats.memory.unwrap_or_default();
    let io = now.usage.stats.io.unwrap_or_default();
    let pids = now.usage.stats.pids.unwrap_or_default();
    let never = json!({ "cpu_usage": { "total_usage": 0 }, "system_cpu_usage": 0 });
    let bytes = |op: &str, value: u64| json!({ "major": 0, "minor": 0, "op": op, "value": value });
    json!({
        "id": record.id.as_str(),
        "name": format!("/{}", record.name),
        "read": at,
        "preread": before.map_or_else(|| json!("0001-01-01T00:00:00Z"), |(_, at)| json!(at)),
        "num_procs": 0,
        "pids_stats": { "current": pids.current, "limit": pids.limit },
        "cpu_stats": cpu(now, cpus),
        "precpu_stats": before.map_or(never, |(look, _)| cpu(look, cpus)),
        "memory_stats": {
            "usage": memory.usage,
            "max_usage": memory.peak,
            "limit": now.usage.memory_limit,
            // What clients take from the usage, by the names of either version of cgroups.
            "stats": { "inactive_file": memory.inactive_file, "total_inactive_file": memory.inactive_file },
        },
        "networks": { "eth0": { "rx_bytes": now.usage.network.0, "tx_bytes": now.usage.network.1 } },
        "blkio_stats": {
            "io_service_bytes_recursive": [bytes("read", io.read_bytes), bytes("write", io.written_bytes)],
            "io_serviced_recursive": [bytes("read", io.reads), bytes("write", io.writes)],
        },
        "storage_stats": {},
    })
}
