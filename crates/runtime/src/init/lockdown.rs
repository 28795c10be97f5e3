//! The last steps, the same for a container's first process and for further ones: streams, limits, identity,
//! rights, filter, program.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cata_sys::capability;
use cata_sys::flag::Flag;
use cata_sys::path::{Make, Root};
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::label::Labels;
use super::reaper::Reaper;
use super::{Prepared, identity, program, terminal, withhold};
use crate::error::Stage;
use crate::handshake::{Channel, Failure, Message, Moment};
use crate::hook::{self, Hook};
use crate::manner::Manner;
use crate::plan::{Capabilities, Process};
use crate::user::Identity;

/// How long the caller may take to hand the listener of a filter on.
const LISTENER_WAIT: Duration = Duration::from_secs(60);

/// What the last steps need.
pub(super) struct End<'a> {
    pub(super) process: &'a Process,
    pub(super) prepared: Prepared,
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) manner: Manner<'a>,
    pub(super) labels: Labels,
}

/// Never returns when all goes well.
pub(super) fn finish(
    end: End<'_>,
    hooks: &[Hook],
    channel: &mut Channel,
    reaper: Option<Reaper>,
) -> Result<Infallible, Failure> {
    let End { process, prepared, stdio, manner, labels } = end;
    let identity = &prepared.identity;
    leave_keyring()?;
    schedule(process)?;
    for limit in &process.rlimits {
        if limit.name == FILES { make_room(limit, channel)? } else { set_limit(limit, channel)? }
    }
    streams(&prepared, stdio)?;
    rustix::process::fchdir(&prepared.cwd)
        .map_err(Failure::at(Stage::WorkingDirectory, process.cwd.display()))?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    let sets = match process.capabilities {
        Some(wanted) => Some(available(wanted, channel)?),
        None => None,
    };
    if !become_user(identity, sets)? && identity.groups.iter().any(|group| *group != identity.gid) {
        let words: Vec<String> = identity.groups.iter().map(u32::to_string).collect();
        let why = "nobody may change groups in this user namespace";
        withhold(channel, format!("groups {}: {why}", words.join(" ")))?;
    }
    super::die_with_caller(channel)?;
    let environment = program::environment(process, identity);
    let path = program::find(process, &environment)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at(Stage::Identity, "no_new_privs"))?;
    }
    labels.set()?;
    if let Some(gate) = manner.gate {
        wait_at(gate, channel)?;
    }
    if !hooks.is_empty() {
        let state = super::ask(channel, Moment::StartContainer)?;
        hook::all("startContainer", hooks, &state).map_err(Failure::Hook)?;
    }
    if reaper.is_some() {
        // Before the filter, which may not let the reaper block signals; the payload undoes it.
        cata_sys::disposition::block_all().map_err(Failure::at(Stage::Reaper, ""))?;
    } else {
        cata_sys::disposition::reset().map_err(Failure::at(Stage::Execute, "signals"))?;
    }
    // Before the filter: profiles are older than the call. What is opened from here on closes by itself.
    let first = 3u32.saturating_add(manner.preserve);
    cata_sys::program::close_on_execute_from(first).map_err(Failure::at(Stage::Execute, "close_range"))?;
    for limit in process.rlimits.iter().filter(|limit| limit.name == FILES) {
        set_limit(&within_reach(limit), channel)?;
    }
    // Without no_new_privs a filter needs CAP_SYS_ADMIN: it is kept for this one call.
    if process.no_new_privileges {
        drop_rights(sets)?;
        load_filter(process, channel)?;
    } else {
        load_filter(process, channel)?;
        drop_rights(sets)?;
    }
    if let Some(reaper) = reaper {
        reaper.divide(prepared.terminal.is_some(), &labels)?;
        super::die_with_caller(channel)?;
        cata_sys::disposition::reset().map_err(Failure::at(Stage::Execute, "signals"))?;
    }
    if manner.outlive && manner.gate.is_none() {
        live_on()?;
    }
    channel.send(&Message::Ready, None).map_err(Failure::at(Stage::Handshake, ""))?;
    Err(program::execute(&path, process, &environment))
}

/// The keys of who started the container are not the container's. As root, who has room for many keyrings.
fn leave_keyring() -> Result<(), Failure> {
    match cata_sys::keyring::leave_session() {
        // No keyrings, or a filter around this machine that the container cannot get past either.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        Err(errno) => Err(Failure::at(Stage::Identity, "session keyring")(errno)),
    }
}

/// As the plan says, while there is a right to it.
fn schedule(process: &Process) -> Result<(), Failure> {
    if let Some(wanted) = &process.scheduler {
        let attributes = cata_sys::schedule::Attributes {
            policy: wanted.policy,
            flags: wanted.flags,
            nice: wanted.nice,
            priority: wanted.priority,
            runtime: wanted.runtime,
            deadline: wanted.deadline,
            period: wanted.period,
        };
        cata_sys::schedule::set_scheduler(&attributes).map_err(Failure::at(Stage::Schedule, "scheduler"))?;
    }
    if let Some(wanted) = process.io_priority {
        cata_sys::schedule::set_io_priority(wanted.class, wanted.level)
            .map_err(Failure::at(Stage::Schedule, "I/O priority"))?;
    }
    match &process.affinity {
        Some((_, last)) if !last.is_empty() => stay_on(last),
        _ => Ok(()),
    }
}

/// Runs on these CPUs only.
pub(super) fn stay_on(cpus: &[usize]) -> Result<(), Failure> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(Failure::at(Stage::Schedule, "CPU affinity"))
}

/// Says that all is prepared, and waits for whoever starts it: the caller from then on.
fn wait_at(gate: BorrowedFd<'_>, channel: &mut Channel) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::Gate, "");
    channel.send(&Message::Waiting, None).map_err(failed())?;
    if !channel.wait_for_go().map_err(failed())? {
        return Err(Failure::Orphaned);
    }
    live_on()?;
    // The caller may end now. Should it have ended this moment, nobody is there to be told.
    let _ = channel.send(&Message::Free, None);
    loop {
        let connection =
            rustix::io::retry_on_intr(|| rustix::net::accept_with(gate, rustix::net::SocketFlags::CLOEXEC));
        channel.replace(&connection.map_err(failed())?).map_err(failed())?;
        match channel.wait_for_go() {
            Ok(true) => return Ok(()),
            // Whoever it was is gone: somebody else may come.
            Ok(false) | Err(Errno::CONNRESET) => {}
            Err(errno) => return Err(failed()(errno)),
        }
    }
}

/// Does not die with the caller any more.
fn live_on() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(None)
        .map_err(Failure::at(Stage::Handshake, "PR_SET_PDEATHSIG"))
}

/// As Docker does it: root owns what was missing.
pub(super) fn make_cwd(root: &Root, cwd: &Path) -> Result<(), Failure> {
    match root.make(cwd, Make::Directory, 0o755) {
        Err(Errno::NOTDIR) => Err(Failure::NotDirectory(cwd.to_owned())),
        result => result.map(drop).map_err(Failure::at(Stage::WorkingDirectory, cwd.display())),
    }
}

/// Beneath the root and through no magic link: a leaked descriptor cannot be a working directory
/// (CVE-2024-21626).
pub(super) fn open_cwd(root: &Root, cwd: &Path) -> Result<OwnedFd, Failure> {
    match root.open(cwd, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => Err(Failure::NotDirectory(cwd.to_owned())),
        result => result.map_err(Failure::at(Stage::WorkingDirectory, cwd.display())),
    }
}

fn streams(prepared: &Prepared, stdio: [BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::StandardStreams, "");
    if let Some(slave) = &prepared.terminal {
        terminal::control(slave.as_fd())?;
        rustix::stdio::dup2_stdin(slave).map_err(failed())?;
        rustix::stdio::dup2_stdout(slave).map_err(failed())?;
        return rustix::stdio::dup2_stderr(slave).map_err(failed());
    }
    // Copies above the three numbers first: one stream may be another's number.
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let [stdin, stdout, stderr] = stdio.map(copy);
    let (stdin, stdout, stderr) =
        (stdin.map_err(failed())?, stdout.map_err(failed())?, stderr.map_err(failed())?);
    for stream in [&stdin, &stdout, &stderr] {
        own(stream, prepared.identity.uid);
    }
    rustix::stdio::dup2_stdin(&stdin).map_err(failed())?;
    rustix::stdio::dup2_stdout(&stdout).map_err(failed())?;
    rustix::stdio::dup2_stderr(&stderr).map_err(failed())
}

/// A pipe belongs to the user, so that `/dev/stdout` can be opened again by name. Anything else, a user's
/// terminal or file, is left as it is.
fn own(stream: &OwnedFd, uid: u32) {
    let is_pipe = |stat: rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != uid
    };
    if rustix::fs::fstat(stream).is_ok_and(is_pipe) {
        // Only opening it again by name depends on it.
        let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
    }
}

/// The limit that is in the way of the steps to come.
const FILES: &str = "RLIMIT_NOFILE";

/// Takes the right to a limit while there is a right to take it, but no descriptor from the steps to come.
fn make_room(limit: &crate::plan::Rlimit, channel: &Channel) -> Result<(), Failure> {
    let present = rustix::process::getrlimit(Resource::Nofile);
    let wide = crate::plan::Rlimit {
        name: limit.name.clone(),
        soft: limit.soft.max(present.current.unwrap_or(u64::MAX)),
        hard: limit.hard.max(present.maximum.unwrap_or(u64::MAX)),
    };
    set_limit(&wide, channel)
}

/// What [`make_room`] got of it: what it did not get has been told.
fn within_reach(limit: &crate::plan::Rlimit) -> crate::plan::Rlimit {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    crate::plan::Rlimit { name: limit.name.clone(), soft: limit.soft.min(most), hard: limit.hard.min(most) }
}

fn set_limit(limit: &crate::plan::Rlimit, channel: &Channel) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::Rlimit, &limit.name);
    let resource = resource(&limit.name).ok_or_else(|| failed()(Errno::INVAL))?;
    let value = |number: u64| (number != u64::MAX).then_some(number);
    let wanted = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
    match rustix::process::setrlimit(resource, wanted) {
        Err(Errno::PERM) => {}
        result => return result.map_err(failed()),
    }
    // The host does not let it be raised: as much as there is.
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let given = Rlimit { current: value(limit.soft.min(most)), maximum: value(limit.hard.min(most)) };
    rustix::process::setrlimit(resource, given).map_err(failed())?;
    withhold(channel, format!("{} {}:{}: the host's limit is {most}", limit.name, limit.soft, limit.hard))
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

/// What of the wanted capabilities can be had here; the rest is reported by name.
fn available(wanted: Capabilities, channel: &Channel) -> Result<Capabilities, Failure> {
    let failed = || Failure::at(Stage::Capabilities, "");
    let bounding = capability::bounding();
    let held = capability::permitted().map_err(failed())? & bounding;
    let asked = wanted.bounding | wanted.effective | wanted.permitted | wanted.inheritable | wanted.ambient;
    for name in capability::names(asked & !held) {
        withhold(channel, format!("{name}: this host does not have it"))?;
    }
    let permitted = wanted.permitted & held;
    Ok(Capabilities {
        bounding: wanted.bounding & held,
        permitted,
        effective: wanted.effective & permitted,
        inheritable: wanted.inheritable & held,
        ambient: wanted.ambient & permitted & wanted.inheritable,
    })
}

/// `false`: without its further groups.
fn become_user(identity: &Identity, sets: Option<Capabilities>) -> Result<bool, Failure> {
    let failed = || Failure::at(Stage::Capabilities, "");
    if let Some(sets) = sets {
        capability::limit_bounding(sets.bounding).map_err(failed())?;
        rustix::thread::set_keep_capabilities(true).map_err(failed())?;
    }
    let given = identity::change(identity.uid, identity.gid, &identity.groups)?;
    if let Some(sets) = sets {
        let held = capability::permitted().map_err(failed())?;
        let extra = capability::SYS_ADMIN & held;
        let permitted = sets.permitted | extra;
        capability::set_sets(sets.effective | extra, permitted, sets.inheritable).map_err(failed())?;
        rustix::thread::set_keep_capabilities(false).map_err(failed())?;
        capability::set_ambient(sets.ambient).map_err(failed())?;
    }
    Ok(given)
}

fn drop_rights(sets: Option<Capabilities>) -> Result<(), Failure> {
    let Some(sets) = sets else { return Ok(()) };
    if sets.permitted & sets.effective & capability::SYS_ADMIN != 0 {
        return Ok(());
    }
    capability::set_sets(sets.effective, sets.permitted, sets.inheritable)
        .map_err(Failure::at(Stage::Capabilities, ""))
}

fn load_filter(process: &Process, channel: &Channel) -> Result<(), Failure> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let loaded = if filter.notifies() {
        // Once it is loaded nothing can be sent any more without the listener's leave: the caller takes the
        // descriptor by the number it is going to have, and raises a flag.
        let failed = || Failure::at(Stage::Seccomp, "listener");
        let (flag, file) = Flag::new().map_err(failed())?;
        let next = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0).map_err(failed())?;
        let number = next.as_raw_fd();
        channel.send(&Message::Listener(number), Some(file.as_fd())).map_err(failed())?;
        drop(next);
        let loaded = filter.load_notifying();
        if loaded.is_ok() && !flag.wait(LISTENER_WAIT) {
            cata_sys::clone::exit(1);
        }
        // It closes when the program starts.
        loaded.map(std::mem::forget)
    } else {
        filter.load()
    };
    loaded.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Failure::at(Stage::Seccomp, "")(errno)
    })
}
