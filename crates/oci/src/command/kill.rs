//! `kill`: a signal to a container's first process, or to all of its processes.

use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags};

use super::{Command, HELP};
use crate::World;
use crate::args::{Given, switch};
use crate::error::{Error, Result};
use crate::signal;
use crate::store::{Container, Status};

pub(super) const COMMAND: Command = Command {
    name: "kill",
    words: "ID [SIGNAL]",
    help: "send a signal (TERM) to a container",
    flags: &[switch("all", "a", "to all of its processes"), HELP],
    stop: usize::MAX,
    count: (1, 2),
    makes: false,
    run,
};

fn run(world: &World, given: &Given) -> Result<u8> {
    let number = signal::parse(given.words.get(1).map_or("TERM", String::as_str))?;
    let container = world.store.get(super::id(given))?;
    let all = given.on("all");
    if all || (number == signal::KILL && !container.record.own_pids) {
        return to_all(&container, number, all);
    }
    let process = container.process().filter(|_| container.status() != Status::Stopped);
    let (_, pidfd) = process.ok_or_else(|| Error::new("container not running"))?;
    cata_sys::pidfd::signal(pidfd.as_fd(), number).map_err(|e| Error::new(format!("send a signal: {e}")))?;
    if number == signal::KILL
        && container.status() == Status::Paused
        && let Some(cgroup) = container.cgroup()
    {
        // A frozen process of version 1 dies only once it is thawed.
        cgroup.thaw().map_err(|e| Error::chain("thaw", &e))?;
    }
    Ok(0)
}

/// Everybody in the cgroup; without a pid namespace of its own also who outlived the first process.
fn to_all(container: &Container, number: i32, asked: bool) -> Result<u8> {
    let Some(cgroup) = container.cgroup() else {
        let (_, pidfd) = container.process().ok_or_else(|| Error::new("container not running"))?;
        cata_sys::pidfd::signal(pidfd.as_fd(), number)
            .map_err(|e| Error::new(format!("send a signal: {e}")))?;
        return Ok(0);
    };
    let list = || cgroup.processes().map_err(|e| Error::chain("list processes", &e));
    if number == signal::KILL {
        if list()?.is_empty() && !asked {
            return Err(Error::new("container not running"));
        }
        cgroup.kill(std::time::Duration::ZERO).map_err(|e| Error::chain("kill", &e))?;
        return Ok(0);
    }
    for pid in list()? {
        let Some(pidfd) =
            Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        // A number may have been reused before its descriptor was opened.
        if list()?.contains(&pid) {
            cata_sys::pidfd::signal(pidfd.as_fd(), number)
                .map_err(|e| Error::new(format!("send a signal to {pid}: {e}")))?;
        }
    }
    Ok(0)
}
