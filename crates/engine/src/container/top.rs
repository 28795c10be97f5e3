//! `top`: a container's processes, from the host's `/proc`. No `ps` is run, none is needed inside.

use std::fs;
use std::path::Path;

use cata_guest::protocol::{Ask, RawProcess, Told};
use cata_runtime::cgroup::{self, Cgroup, CgroupError, Layout};
use cata_sandbox::launch::Isolation;
use cata_sandbox::status::StatusKind;

use crate::container::live::Owner;
use crate::container::wait::not_running;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::record::Record;

/// One process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Effective user id.
    pub uid: u32,
    /// As the host sees it.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Percent of one CPU over its life.
    pub cpu_percent: f64,
    /// Percent of the host's memory.
    pub memory_percent: f64,
    /// Virtual size, bytes.
    pub virtual_bytes: u64,
    /// Resident, bytes.
    pub resident_bytes: u64,
    /// Start, seconds since the epoch.
    pub started: u64,
    /// Terminal (`pts/0`), or `?`.
    pub terminal: String,
    /// `ps`'s state letters.
    pub state: String,
    /// CPU time used, seconds.
    pub cpu_seconds: u64,
    /// The whole command line; `[name]` when it has none.
    pub command: String,
    /// The kernel's 15-character name.
    pub name: String,
}

/// Facts of the host that percentages need.
#[derive(Debug, Clone, Copy)]
struct Clock {
    boot: u64,
    now: u64,
    ticks: u64,
    memory: u64,
}

impl Engine {
    /// The processes of a running container, by pid.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run.
    pub fn processes(&self, container: &str) -> Result<Vec<Process>> {
        let record = self.find(container)?;
        let runs = |engine: &Self| -> Result<Option<i32>> {
            let (status, owner) = engine.status(&record.id)?;
            let runs = matches!(status.status, StatusKind::Running | StatusKind::Paused);
            Ok((owner == Owner::Alive && runs).then_some(status.supervisor_pid))
        };
        let supervisor = runs(self)?.ok_or_else(|| not_running(&record))?;
        if record.request.isolation == Isolation::Vm {
            return self.guests_processes(&record);
        }
        let clock = Clock::read();
        let pids = match self.host.rootless {
            true => descendants(supervisor),
            false => match pids(&record) {
                // It has ended since we looked.
                Err(_) if runs(self)?.is_none() => return Err(not_running(&record)),
                pids => pids?,
            },
        };
        let mut list: Vec<Process> = pids.into_iter().filter_map(|pid| read(pid, clock)).collect();
        if let Some(users) = record.users.as_ref().filter(|_| self.host.rootless) {
            // To a user without privileges the others' names would be of ids that he counts.
            list.iter_mut().for_each(|one| one.uid = users.uid_inside(one.uid).unwrap_or(one.uid));
        }
        list.sort_by_key(|process| process.pid);
        Ok(list)
    }
}

impl Engine {
    /// As the guest tells it, which may tell anything.
    fn guests_processes(&self, record: &Record) -> Result<Vec<Process>> {
        let told = self.ask_guest(record, Ask::Processes)?;
        let Told::Processes { list, boot, memory, ticks } = told else {
            return Err(Error::State {
                what: "the guest does not tell its processes".to_owned(),
                hint: None,
            });
        };
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let clock = Clock { boot, now, ticks: ticks.max(1), memory: memory.max(1) };
        let parse = |raw: RawProcess| parse(raw.pid, &raw.stat, &raw.status, raw.cmdline.as_bytes(), clock);
        let mut list: Vec<Process> = list.into_iter().filter_map(parse).collect();
        list.sort_by_key(|process| process.pid);
        Ok(list)
    }
}

/// Every process of the container's cgroup: also those that joined by exec or left its first process's tree.
pub(crate) fn pids(record: &Record) -> Result<Vec<i32>> {
    let wrap = |e: CgroupError| Error::Runtime(Foreign::new(Kind::Internal, e.hint().map(str::to_owned), &e));
    let layout = Layout::detect().map_err(wrap)?;
    let plan = cgroup::plan(None, &record.cgroup_path().to_string_lossy(), &layout).map_err(wrap)?;
    Cgroup::open(&plan).and_then(|cgroup| cgroup.processes()).map_err(wrap)
}

/// Every process that a supervisor has: it reaps what is left alone, and so has all that ever began in its container.
fn descendants(supervisor: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<(i32, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name may hold anything.
        let after = stat.rsplit_once(')')?.1;
        Some((pid, after.split_whitespace().nth(1)?.parse().ok()?))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(i32, i32)> =
        entries.filter_map(|entry| parent(entry.file_name().to_str()?.parse().ok()?)).collect();
    let mut found = vec![supervisor];
    let mut at = 0;
    while let Some(of) = found.get(at).copied() {
        found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

impl Clock {
    fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot =
            stat.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.parse().ok()).unwrap_or(0);
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        Self {
            boot,
            now,
            ticks: rustix::param::clock_ticks_per_second().max(1),
            memory: crate::host::Facts::read().memory.max(1),
        }
    }
}

/// One process; `None` when it ended meanwhile.
fn read(pid: i32, clock: Clock) -> Option<Process> {
    let dir = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{dir}/stat")).ok()?;
    let status = fs::read_to_string(format!("{dir}/status")).ok()?;
    let command = fs::read(Path::new(&dir).join("cmdline")).ok()?;
    parse(pid, &stat, &status, &command, clock)
}

/// PURE: `/proc/<pid>/{stat,status,cmdline}` as a process (proc_pid_stat(5)).
fn parse(pid: i32, stat: &str, status: &str, command: &[u8], clock: Clock) -> Option<Process> {
    // The name is in parentheses and may contain anything, parentheses too.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(open + 1..close)?.to_owned();
    let fields: Vec<&str> = stat.get(close + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3).and_then(|f| f.parse::<i64>().ok());
    let unsigned = |index: usize| number(index).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()?;
    let cpu_ticks = unsigned(14).saturating_add(unsigned(15));
    let started = clock.boot.saturating_add(unsigned(22) / clock.ticks);
    let age = clock.now.saturating_sub(started).max(1);
    let resident = unsigned(24).saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096));
    let text = String::from_utf8_lossy(command);
    let words: Vec<&str> = text.split('\0').filter(|w| !w.is_empty()).collect();
    #[expect(clippy::cast_precision_loss, reason = "percentages for people")]
    let (cpu_percent, memory_percent) = (
        cpu_ticks as f64 * 100.0 / clock.ticks as f64 / age as f64,
        resident as f64 * 100.0 / clock.memory as f64,
    );
    Some(Process {
        uid,
        pid,
        parent: i32::try_from(number(4)?).ok()?,
        cpu_percent,
        memory_percent,
        virtual_bytes: unsigned(23),
        resident_bytes: resident,
        started,
        terminal: terminal(unsigned(7)),
        state: state(&fields, pid, number(6)?, number(8)?, number(19)?, number(20)?),
        cpu_seconds: cpu_ticks / clock.ticks,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        name,
    })
}

fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// `ps`'s letters: state, `<`/`N` for niceness, `s` session leader, `l` threads, `+` foreground.
fn state(fields: &[&str], pid: i32, session: i64, foreground: i64, nice: i64, threads: i64) -> String {
    let mut text = fields.first().copied().unwrap_or("?").to_owned();
    let group = fields.get(2).and_then(|f| f.parse::<i64>().ok());
    match nice {
        ..0 => text.push('<'),
        1.. => text.push('N'),
        0 => {}
    }
    if session == i64::from(pid) {
        text.push('s');
    }
    if threads > 1 {
        text.push('l');
    }
    if group == Some(foreground) {
        text.push('+');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_a_name_full_of_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 34816 42 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1000 8192 3 184 0";
        let clock = Clock { boot: 100, now: 210, ticks: 100, memory: 1 << 20 };
        let process = parse(42, stat, "Name:\tx\nUid:\t0\t999\t0\t0\n", b"post\0gres\0", clock).unwrap();
        assert_eq!((process.uid, process.parent, process.name.as_str()), (999, 1, "a) b (c"));
        assert_eq!((process.cpu_seconds, process.started), (3, 110));
        assert_eq!((process.terminal.as_str(), process.state.as_str()), ("pts/0", "Ss+"));
        assert_eq!(process.command, "post gres");
        assert!((process.cpu_percent - 3.0).abs() < 0.01);
    }

    #[test]
    fn parse_of_rubbish_is_none() {
        let clock = Clock { boot: 0, now: 0, ticks: 100, memory: 1 };
        for stat in ["", "1", ")(", "1 (x)", "1 (x) S"] {
            assert_eq!(parse(1, stat, "Uid: 0 0\n", b"", clock), None, "{stat}");
        }
    }
}
