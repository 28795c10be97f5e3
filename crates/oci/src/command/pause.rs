//! `pause` and `resume`.

use cata_runtime::cgroup::Cgroup;

use super::{Command, HELP};
use crate::World;
use crate::args::Given;
use crate::error::{Error, Result};
use crate::store::Status;

pub(super) const PAUSE: Command = Command {
    name: "pause",
    words: "ID",
    help: "stop all processes of a container",
    flags: &[HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run: pause,
};

pub(super) const RESUME: Command = Command {
    name: "resume",
    words: "ID",
    help: "let them go on",
    flags: &[HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run: resume,
};

fn pause(world: &World, given: &Given) -> Result<u8> {
    change(world, given, &[Status::Created, Status::Running], "pause", Cgroup::freeze)
}

fn resume(world: &World, given: &Given) -> Result<u8> {
    change(world, given, &[Status::Paused], "resume", Cgroup::thaw)
}

fn change(
    world: &World,
    given: &Given,
    from: &[Status],
    what: &str,
    how: fn(&Cgroup) -> std::result::Result<(), cata_runtime::cgroup::CgroupError>,
) -> Result<u8> {
    let mut container = world.store.get(super::id(given))?;
    let _lock = container.lock(&world.store)?;
    let status = container.status();
    if !from.contains(&status) {
        return Err(Error::new(format!("cannot {what} a container that is {}", status.word())));
    }
    let cgroup = container
        .cgroup()
        .ok_or_else(|| Error::new(format!("cannot {what}: the container has no cgroup")))?;
    how(&cgroup).map_err(|e| Error::chain(what, &e))?;
    Ok(0)
}
