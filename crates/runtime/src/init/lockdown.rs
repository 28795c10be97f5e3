//! The last steps, the same for a container's first process and for further ones: streams, limits, identity,
//! rights, filter, program.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::capability;
use cata_sys::path::{Make, Root};
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::reaper::Reaper;
use super::{Prepared, identity, program, terminal, withhold};
use crate::error::Stage;
use crate::handshake::{Channel, Failure, Message};
use crate::plan::{Capabilities, Process};
use crate::user::Identity;

/// Never returns when all goes well.
pub(super) fn finish(
    process: &Process,
    prepared: &Prepared,
    stdio: [BorrowedFd<'_>; 3],
    channel: &Channel,
    reaper: Option<Reaper>,
) -> Result<Infallible, Failure> {
    let identity = &prepared.identity;
    leave_keyring()?;
    for limit in &process.rlimits {
        set_limit(limit, channel)?;
    }
    streams(prepared, stdio)?;
    rustix::process::fchdir(&prepared.cwd)
        .map_err(Failure::at(Stage::WorkingDirectory, process.cwd.display()))?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    let sets = match process.capabilities {
        Some(wanted) => Some(available(wanted, channel)?),
        None => None,
    };
    become_user(identity, sets)?;
    super::die_with_caller(channel)?;
    let environment = program::environment(process, identity);
    let path = program::find(process, &environment)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at(Stage::Identity, "no_new_privs"))?;
    }
    if reaper.is_some() {
        // Before the filter, which may not let the reaper block signals; the payload undoes it.
        cata_sys::disposition::block_all().map_err(Failure::at(Stage::Reaper, ""))?;
    } else {
        cata_sys::disposition::reset().map_err(Failure::at(Stage::Execute, "signals"))?;
    }
    // Without no_new_privs a filter needs CAP_SYS_ADMIN: it is kept for this one call.
    if process.no_new_privileges {
        drop_rights(sets)?;
        load_filter(process)?;
    } else {
        load_filter(process)?;
        drop_rights(sets)?;
    }
    if let Some(reaper) = reaper {
        reaper.divide(prepared.terminal.is_some())?;
        super::die_with_caller(channel)?;
        cata_sys::disposition::reset().map_err(Failure::at(Stage::Execute, "signals"))?;
    }
    cata_sys::program::close_on_execute_from(3).map_err(Failure::at(Stage::Execute, "close_range"))?;
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

fn become_user(identity: &Identity, sets: Option<Capabilities>) -> Result<(), Failure> {
    let failed = || Failure::at(Stage::Capabilities, "");
    if let Some(sets) = sets {
        capability::limit_bounding(sets.bounding).map_err(failed())?;
        rustix::thread::set_keep_capabilities(true).map_err(failed())?;
    }
    identity::change(identity.uid, identity.gid, &identity.groups)?;
    if let Some(sets) = sets {
        let held = capability::permitted().map_err(failed())?;
        let extra = capability::SYS_ADMIN & held;
        let permitted = sets.permitted | extra;
        capability::set_sets(sets.effective | extra, permitted, sets.inheritable).map_err(failed())?;
        rustix::thread::set_keep_capabilities(false).map_err(failed())?;
        capability::set_ambient(sets.ambient).map_err(failed())?;
    }
    Ok(())
}

fn drop_rights(sets: Option<Capabilities>) -> Result<(), Failure> {
    let Some(sets) = sets else { return Ok(()) };
    if sets.permitted & sets.effective & capability::SYS_ADMIN != 0 {
        return Ok(());
    }
    capability::set_sets(sets.effective, sets.permitted, sets.inheritable)
        .map_err(Failure::at(Stage::Capabilities, ""))
}

fn load_filter(process: &Process) -> Result<(), Failure> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    filter.load().map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Failure::at(Stage::Seccomp, "")(errno)
    })
}
