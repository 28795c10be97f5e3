//! `delete`: nothing of a container remains.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::{Command, HELP, create, start};
use crate::World;
use crate::args::{Given, switch};
use crate::error::{Error, Result};
use crate::hooks;
use crate::store::{Container, Status, check_id};

pub(super) const COMMAND: Command = Command {
    name: "delete",
    words: "ID",
    help: "remove a container that is stopped, or was never started",
    flags: &[switch("force", "f", "kill it first"), HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run,
};

/// How long a process may take to die of SIGKILL.
const DEATH_SECONDS: i64 = 10;

fn run(world: &World, given: &Given) -> Result<u8> {
    let (id, force) = (super::id(given), given.on("force"));
    check_id(id)?;
    let mut container = match world.store.get(id) {
        Ok(container) => container,
        Err(error) => return unknown(world, id, force, error),
    };
    let _lock = match container.lock(&world.store) {
        Ok(lock) => lock,
        // Somebody else has just removed it.
        Err(_) if force => return Ok(0),
        Err(error) => return Err(error),
    };
    match container.status() {
        Status::Stopped => {}
        Status::Created => kill(&container)?,
        _ if force => kill(&container)?,
        status => {
            return Err(Error::new(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.word()
            )));
        }
    }
    remove(world, &container)?;
    Ok(0)
}

/// A directory without a record: what a killed `create` or `delete` left is taken away.
fn unknown(world: &World, id: &str, force: bool, error: Error) -> Result<u8> {
    let dir = world.store.dir(id);
    if dir.join("state.json").exists() {
        return Err(error);
    }
    if dir.exists() {
        crate::store::forget(&dir)?;
        return Ok(0);
    }
    if force { Ok(0) } else { Err(error) }
}

fn kill(container: &Container) -> Result<()> {
    if let Some((_, pidfd)) = container.process() {
        rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)
            .map_err(|e| Error::new(format!("kill container {}: {e}", container.record.id)))?;
        if let Some(cgroup) = container.cgroup() {
            cgroup.kill(create::EMPTY).map_err(|e| Error::chain("kill", &e))?;
        }
        let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec { tv_sec: DEATH_SECONDS, tv_nsec: 0 };
        if rustix::io::retry_on_intr(|| poll(&mut watched, Some(&limit))) == Ok(0) {
            return Err(Error::new(format!("container {} does not die", container.record.id)));
        }
    }
    Ok(())
}

pub(super) fn remove(world: &World, container: &Container) -> Result<()> {
    container.remove_cgroup(create::EMPTY)?;
    match start::specification(container).and_then(|bundle| hooks::Own::of(&bundle.spec)) {
        Ok(own) => {
            let state = hooks::text(&container.record, Status::Stopped, 0);
            own.stopped(&state).iter().for_each(|what| world.log.warning(what));
        }
        Err(error) => world.log.warning(&format!("no poststop hooks are run: {error}")),
    }
    container.forget()
}
