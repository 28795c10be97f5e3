//! `start`: lets a created container's program run.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cata_runtime::Attendant;
use cata_runtime::plan::Listener;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};

use super::{Command, HELP, create};
use crate::World;
use crate::args::Given;
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::store::{Container, Status};
use crate::{console, hooks};

pub(super) const COMMAND: Command = Command {
    name: "start",
    words: "ID",
    help: "start the program of a created container",
    flags: &[HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run,
};

fn run(world: &World, given: &Given) -> Result<u8> {
    let mut container = world.store.get(super::id(given))?;
    let _lock = container.lock(&world.store)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        status => {
            return Err(Error::new(format!("cannot start an already {} container", status.word())));
        }
    }
    let (pid, pidfd) =
        container.process().ok_or_else(|| Error::new("cannot start a container that has stopped"))?;
    let bundle = specification(&container)?;
    if !bundle.has_process() {
        return Err(Error::new("cannot start a container whose specification has no `process`"));
    }
    let own = hooks::Own::of(&bundle.spec)?;
    let gate = connect(&container.dir)?;
    let mut company = Company { container: &container, listener: listener(&bundle) };
    let withheld = cata_runtime::start(gate, pidfd.as_fd(), pid, &mut company)
        .map_err(|e| Error::chain("unable to start container process", &e))?;
    withheld.iter().for_each(|what| world.log.warning(what));
    let state = hooks::text(&container.record, Status::Running, container.record.pid);
    if let Err(error) = own.started(&state) {
        // The specification: a container whose hook failed is stopped.
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        return Err(Error::new(error));
    }
    Ok(0)
}

/// What the container was made from.
pub(super) fn specification(container: &Container) -> Result<Bundle> {
    let path = container.dir.join("config.json");
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    Bundle::of(container.record.bundle.clone(), text, &path)
}

pub(super) fn listener(bundle: &Bundle) -> Option<Listener> {
    let seccomp = bundle.spec.linux().as_ref()?.seccomp().as_ref()?;
    let path = seccomp.listener_path().clone()?;
    Some(Listener { path, metadata: seccomp.listener_metadata().clone() })
}

fn connect(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("start");
    let failed = || Error::errno("connect to", &path);
    let (address, _directory) = console::address(&path).map_err(failed())?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed())?;
    rustix::net::connect(&socket, &address).map_err(failed())?;
    Ok(socket)
}

struct Company<'a> {
    container: &'a Container,
    listener: Option<Listener>,
}

impl Attendant for Company<'_> {
    fn start_container(&mut self, pid: Pid) -> std::result::Result<Vec<u8>, String> {
        Ok(hooks::text(&self.container.record, Status::Created, pid.as_raw_nonzero().get()))
    }

    fn listener(&mut self, pid: Pid, listener: OwnedFd) -> std::result::Result<(), String> {
        let state = hooks::state(&self.container.record, Status::Created, pid.as_raw_nonzero().get());
        create::tell_listener(self.listener.as_ref(), &state, pid, &listener)
    }
}
