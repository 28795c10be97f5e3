//! `create` and `run`: a container from a bundle.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_runtime::cgroup::{self, Cgroup, CgroupError, CgroupPlan, Layout, Unit};
use cata_runtime::plan::{MountKind, NamespaceKind, Plan};
use cata_runtime::rdt;
use cata_runtime::{Attendant, Handles, Manner, Spawned, spawn_with};
use cata_spec::runtime::LinuxResources;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use serde_json::json;

use super::{Command, HELP};
use crate::World;
use crate::args::{Flag, Given, switch, value};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::store::{self, Container, Record, Status};
use crate::wait::Front;
use crate::{clock, console, hooks, rights};

/// How long a cgroup may take to empty itself once all in it were killed.
pub(super) const EMPTY: Duration = Duration::from_secs(10);

pub(super) const BUNDLE: Flag = value("bundle", "b", "DIR", "where config.json is (the working directory)");
pub(super) const CONSOLE: Flag =
    value("console-socket", "", "PATH", "a unix socket that gets the terminal's master side");
pub(super) const PID_FILE: Flag = value("pid-file", "", "FILE", "write the process's number there");
const PRESERVE: Flag = value("preserve-fds", "", "N", "hand on so many descriptors from 3 on");
pub(super) const NO_PIVOT: Flag = switch("no-pivot", "", "refused: the root is always changed by pivot_root");
const NO_KEYRING: Flag =
    switch("no-new-keyring", "", "accepted: the caller's keys are never the container's");

pub(super) const CREATE: Command = Command {
    name: "create",
    words: "ID",
    help: "make a container; its program waits for `start`",
    flags: &[BUNDLE, CONSOLE, PID_FILE, PRESERVE, NO_PIVOT, NO_KEYRING, HELP],
    stop: usize::MAX,
    count: (1, 1),
    makes: true,
    run: create,
};

pub(super) const RUN: Command = Command {
    name: "run",
    words: "ID",
    help: "make a container, start it, and wait for it",
    flags: &[
        BUNDLE,
        CONSOLE,
        PID_FILE,
        PRESERVE,
        NO_PIVOT,
        NO_KEYRING,
        switch("detach", "d", "do not wait"),
        switch("keep", "", "keep what is known of the container when it has ended"),
        switch("no-subreaper", "", "leave orphans to others"),
        HELP,
    ],
    stop: usize::MAX,
    count: (1, 1),
    makes: true,
    run,
};

fn create(world: &World, given: &Given) -> Result<u8> {
    let mut new = New::prepare(world, given)?;
    let result = new.create();
    result.map_err(|error| new.undo(error))?;
    Ok(0)
}

fn run(world: &World, given: &Given) -> Result<u8> {
    in_front(world, given, |new| {
        if new.plan.process.argv.is_empty() {
            return Err(Error::new("the specification has no `process`: nothing can be run"));
        }
        new.run(given.on("detach"))
    })
}

/// Makes a container by `make`, and stands in front of it until it ends, unless it is to be detached.
pub(super) fn in_front<'a>(
    world: &'a World,
    given: &'a Given,
    make: impl FnOnce(&mut New<'a>) -> Result<Spawned>,
) -> Result<u8> {
    let detach = given.on("detach");
    let front = if detach { None } else { Some(Front::new()?) };
    if !detach && !given.on("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| Error::new(format!("become a subreaper: {e}")))?;
    }
    let mut new = New::prepare(world, given)?;
    let spawned = match make(&mut new) {
        Ok(spawned) => spawned,
        Err(error) => return Err(new.undo(error)),
    };
    world.timing.done("process");
    let Some(front) = front else { return Ok(0) };
    new.release();
    let code = front.stand(&spawned)?;
    world.timing.done("program");
    if !given.on("keep") {
        new.end()?;
    }
    world.timing.done("remove");
    Ok(code)
}

/// A container that is being made.
pub(super) struct New<'a> {
    world: &'a World,
    pub(super) given: &'a Given,
    pub(super) plan: Plan,
    pub(super) hooks: hooks::Own,
    pub(super) container: Container,
    pub(super) cgroup: Option<Cgroup>,
    preserve: u32,
    resources: Option<LinuxResources>,
    /// Limits were asked for.
    limited: bool,
    /// Hooks may have seen it.
    pub(super) tried: bool,
    /// Until it runs.
    lock: Option<store::Lock>,
}

impl<'a> New<'a> {
    /// Everything that can fail before anything is made, then the directory.
    pub(super) fn prepare(world: &'a World, given: &'a Given) -> Result<Self> {
        if given.on("no-pivot") {
            return Err(Error::new("--no-pivot is not supported: a container must not see the old root"));
        }
        let id = super::id(given);
        store::check_id(id)?;
        let bundle = Bundle::load(Path::new(given.get("bundle").unwrap_or(".")))?;
        world.timing.done("specification");
        let mut plan = bundle.plan(id, &world.cache(), world.manager())?;
        let preserve = preserved(given, Some(&mut plan.process.env))?;
        check_terminal(plan.process.terminal, given)?;
        let hooks = hooks::Own::of(&bundle.spec)?;
        let rdt = bundle.rdt(id)?;
        world.timing.done("plan");
        for what in &bundle.ignored {
            world.log.warning(what);
        }
        let (dir, lock) = world.store.make(id)?;
        let annotations = bundle.spec.annotations().iter().flatten();
        let record = Record {
            oci_version: bundle.spec.version().clone(),
            id: id.to_owned(),
            pid: 0,
            started: 0,
            rootfs: bundle.rootfs(),
            created: clock::now(),
            owner: rustix::process::geteuid().as_raw(),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
            cgroup: plan.cgroup.as_ref().map(|cgroup| CgroupPlan {
                directories: cgroup.directories.clone(),
                unit: cgroup.unit.as_ref().map(Unit::bare),
                ..CgroupPlan::default()
            }),
            rdt,
            own_pids: plan.makes(NamespaceKind::Pid),
            tied: false,
            bundle: bundle.path.clone(),
        };
        let container = Container { dir, record, locked: true };
        let resources = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
        let limited = bundle.is_limited();
        let (cgroup, tried) = (None, false);
        let new = Self {
            world,
            given,
            plan,
            hooks,
            container,
            cgroup,
            preserve,
            resources,
            limited,
            tried,
            lock: Some(lock),
        };
        store::write(&new.container.dir.join("config.json"), &bundle.text)
            .and_then(|()| new.container.save())
            .map_err(|error| new.undo(error))?;
        world.timing.done("state");
        Ok(new)
    }

    pub(super) fn make_cgroup(&mut self) -> Result<()> {
        let Some(plan) = &self.plan.cgroup else { return Ok(()) };
        if plan.unit.is_some() {
            // Made around the process.
            return Ok(());
        }
        let missing = store::missing_parents(plan);
        let cgroup = match cgroup::create(plan) {
            // Not this user's to make: the container is where its maker is, and has its limits.
            Err(error) if error.is_permission() && !rights::are_full() => {
                let what = format!("no cgroup, so no limits and no /sys/fs/cgroup: {error}");
                if self.limited {
                    self.world.log.warning(&what);
                } else {
                    // Whoever asked for nothing lacks nothing; some engines take a warning for the container's words.
                    self.world.log.debug(&what);
                }
                self.plan.mounts.retain(|mount| mount.kind != MountKind::Cgroup);
                self.plan.cgroup = None;
                self.container.record.cgroup = None;
                return Ok(());
            }
            made => made.map_err(|e| Error::chain("cgroup", &e))?,
        };
        store::mark(&missing);
        cgroup.warnings().iter().for_each(|what| self.world.log.warning(what));
        self.cgroup = Some(cgroup);
        self.world.timing.done("cgroup");
        Ok(())
    }

    /// Its process waits at the gate.
    fn create(&mut self) -> Result<()> {
        self.make_cgroup()?;
        let gate = gate(&self.container.dir)?;
        // Locked until the process runs its program or dies: it has a copy of this descriptor.
        let held = hold(&self.container.dir)?;
        let manner = Manner { gate: Some(gate.as_fd()), outlive: true, preserve: self.preserve };
        let spawned = self.spawn(manner)?;
        drop(held);
        spawned.withheld.iter().for_each(|what| self.world.log.warning(what));
        Ok(())
    }

    /// Its program runs.
    fn run(&mut self, detach: bool) -> Result<Spawned> {
        self.make_cgroup()?;
        self.container.record.tied = !detach;
        let manner = Manner { gate: None, outlive: detach, preserve: self.preserve };
        let mut spawned = self.spawn(manner)?;
        spawned.withheld.iter().for_each(|what| self.world.log.warning(what));
        if self.given.get("console-socket").is_some() {
            // Somebody else's now.
            spawned.terminal = None;
        }
        let state = hooks::text(&self.container.record, Status::Running, spawned.pid.as_raw_nonzero().get());
        if let Err(error) = self.hooks.started(&state) {
            let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
            return Err(Error::new(error));
        }
        Ok(spawned)
    }

    fn spawn(&mut self, manner: Manner<'_>) -> Result<Spawned> {
        self.tried = true;
        let (stdin, stdout, stderr) =
            (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
        let mut handles = Handles::new(stdin, stdout, stderr);
        let mut company = self.company();
        if let Some(cgroup) = company.cgroup {
            handles = handles.cgroup(cgroup);
        }
        let gate = manner.gate.is_some();
        let spawned = spawn_with(company.plan, &handles, manner, &mut company)
            .map_err(|e| Error::chain("unable to start container process", &e))?;
        if !gate {
            company.waiting(&spawned).map_err(Error::new)?;
        }
        Ok(spawned)
    }

    /// Puts a process that was made elsewhere where the container's are to be.
    pub(super) fn place(&mut self, pid: Pid) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.add(pid.as_raw_nonzero().get()).map_err(|e| Error::chain("cgroup", &e))?;
        }
        self.company().place(pid).map_err(Error::new)
    }

    fn company(&mut self) -> Company<'_> {
        Company {
            container: &mut self.container,
            hooks: &self.hooks,
            plan: &self.plan,
            given: self.given,
            world: self.world,
            resources: self.resources.as_ref(),
            cgroup: self.cgroup.as_ref(),
            limited: self.limited,
        }
    }

    /// Nothing of it remains: the first error is the one to tell.
    pub(super) fn undo(&self, error: Error) -> Error {
        let _ = self.remove();
        error
    }

    /// While it runs others may change it: pause it, say, or remove it.
    pub(super) fn release(&mut self) {
        self.lock = None;
    }

    /// It has ended: removes it, unless somebody else has.
    pub(super) fn end(&mut self) -> Result<()> {
        let pid = self.container.record.pid;
        match self.container.lock(&self.world.store) {
            Ok(lock) if self.container.record.pid == pid => self.lock = Some(lock),
            _ => return Ok(()),
        }
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        let record = &self.container.record;
        let placed = self.tried && (record.unit().is_some() || record.rdt.is_some());
        if self.cgroup.is_some() || placed {
            self.container.remove_cgroup(EMPTY)?;
        }
        if self.tried {
            let state = hooks::text(&self.container.record, Status::Stopped, 0);
            self.hooks.stopped(&state).iter().for_each(|what| self.world.log.warning(what));
        }
        self.container.forget()
    }
}

/// What this program does for the new process.
struct Company<'a> {
    container: &'a mut Container,
    hooks: &'a hooks::Own,
    plan: &'a Plan,
    given: &'a Given,
    world: &'a World,
    resources: Option<&'a LinuxResources>,
    cgroup: Option<&'a Cgroup>,
    limited: bool,
}

impl Company<'_> {
    /// systemd makes the cgroup, around the process that waits for it; the limits are written there besides.
    fn enter_unit(&mut self, unit: &Unit, pid: i32) -> std::result::Result<(), CgroupError> {
        unit.start(pid.cast_unsigned())?;
        let layout = Layout::of(pid)?;
        let path = layout.own_path().unwrap_or_default();
        let mut plan = cgroup::plan(self.resources, &path.to_string_lossy(), &layout)?;
        // Further processes go into systemd's own hierarchy too.
        let own = layout.own_directories(&unit.name);
        plan.directories.extend(own.into_iter().filter(|one| !one.unified && one.controllers.is_empty()));
        let adopted = match Cgroup::adopt(&plan, pid) {
            // Not this user's: systemd has set what it may.
            Err(error) if error.is_permission() && !rights::are_full() => {
                if self.limited {
                    let what = format!("only the limits that systemd has set are in force: {error}");
                    self.world.log.warning(&what);
                }
                // It is in these already.
                plan =
                    CgroupPlan { directories: layout.own_directories(&unit.name), ..CgroupPlan::default() };
                Cgroup::open(&plan)
            }
            adopted => adopted,
        }?;
        adopted.warnings().iter().for_each(|what| self.world.log.warning(what));
        self.container.record.cgroup = Some(CgroupPlan {
            directories: plan.directories,
            unit: Some(unit.bare()),
            ..CgroupPlan::default()
        });
        Ok(())
    }
}

impl Attendant for Company<'_> {
    fn place(&mut self, pid: Pid) -> std::result::Result<(), String> {
        if let Some(class) = &self.container.record.rdt {
            let entered = rdt::mounted().and_then(|root| class.enter(&root, pid.as_raw_nonzero().get()));
            entered.map_err(|e| Error::chain("class of service", &e).to_string())?;
        }
        let Some(unit) = self.plan.cgroup.as_ref().and_then(|cgroup| cgroup.unit.as_ref()) else {
            return Ok(());
        };
        self.enter_unit(unit, pid.as_raw_nonzero().get())
            .map_err(|e| Error::chain("cgroup", &e).to_string())?;
        // Whoever deletes it if this program is killed now knows where it is.
        self.container.save().map_err(|e| e.to_string())?;
        self.world.timing.done("cgroup");
        Ok(())
    }

    fn map_ids(&mut self, pid: Pid) -> std::result::Result<bool, String> {
        rights::map_ids(pid, &self.plan.uid_mappings, &self.plan.gid_mappings)
    }

    fn create_runtime(&mut self, pid: Pid) -> std::result::Result<Vec<u8>, String> {
        let pid = pid.as_raw_nonzero().get();
        let state = hooks::text(&self.container.record, Status::Creating, pid);
        let created = hooks::text(&self.container.record, Status::Created, pid);
        self.hooks.create(&created, &state)?;
        Ok(state)
    }

    fn start_container(&mut self, pid: Pid) -> std::result::Result<Vec<u8>, String> {
        Ok(hooks::text(&self.container.record, Status::Created, pid.as_raw_nonzero().get()))
    }

    fn waiting(&mut self, spawned: &Spawned) -> std::result::Result<(), String> {
        let pid = spawned.pid.as_raw_nonzero().get();
        // What has ended already cannot be told from another of its number; it is recorded as ended.
        self.container.record.started = store::started(pid).unwrap_or(0);
        self.container.record.pid = pid;
        if let (Some(socket), Some(master)) = (self.given.get("console-socket"), &spawned.terminal) {
            console::hand_over(Path::new(socket), master.as_fd()).map_err(|e| e.to_string())?;
        }
        self.container.save().map_err(|e| e.to_string())?;
        write_pid(self.given, pid).map_err(|e| e.to_string())
    }

    fn listener(&mut self, pid: Pid, listener: OwnedFd) -> std::result::Result<(), String> {
        let state = hooks::state(&self.container.record, Status::Creating, pid.as_raw_nonzero().get());
        tell_listener(self.plan.process.seccomp_listener.as_ref(), &state, pid, &listener)
    }
}

/// Hands a filter's descriptor to whoever listens, as the specification has it.
pub(super) fn tell_listener(
    to: Option<&cata_runtime::plan::Listener>,
    state: &serde_json::Value,
    pid: Pid,
    listener: &OwnedFd,
) -> std::result::Result<(), String> {
    let to = to.ok_or("the filter notifies, and the specification has no listenerPath")?;
    let mut message = json!({
        "ociVersion": crate::SPECIFICATION, "fds": ["seccompFd"], "pid": pid.as_raw_nonzero().get(),
        "state": state,
    });
    if let Some(metadata) = &to.metadata {
        message["metadata"] = metadata.as_str().into();
    }
    let socket = console::connect(&to.path).map_err(|e| e.to_string())?;
    cata_sys::message::send(socket.as_fd(), message.to_string().as_bytes(), &[listener.as_fd()])
        .map_err(|e| format!("seccomp listener {}: {e}", to.path.display()))
}

/// The number in a file, whole or not at all.
pub(super) fn write_pid(given: &Given, pid: i32) -> Result<()> {
    let Some(path) = given.get("pid-file").map(PathBuf::from) else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}"));
    fs::write(&new, pid.to_string()).map_err(Error::io("write", &new))?;
    fs::rename(&new, &path).map_err(Error::io("write", &path))
}

/// A terminal needs somebody who takes it, or ours.
pub(super) fn check_terminal(terminal: bool, given: &Given) -> Result<()> {
    let socket = given.get("console-socket").is_some_and(|path| !path.is_empty());
    let front = given.get("detach").is_some_and(|on| on == "false");
    if !terminal && socket {
        return Err(Error::new("cannot use console socket if the process has no terminal"));
    }
    let _ = front;
    Ok(())
}

/// How many descriptors go on; also those that systemd's protocol counts in `LISTEN_FDS`, which goes into the
/// environment.
pub(super) fn preserved(given: &Given, environment: Option<&mut Vec<String>>) -> Result<u32> {
    let mut count = given.number::<u32>("preserve-fds")?.unwrap_or(0);
    let listen = crate::listening();
    if listen > 0
        && let Some(environment) = environment
    {
        count = count.saturating_add(listen);
        environment.push(format!("LISTEN_FDS={listen}"));
        environment.push("LISTEN_PID=1".to_owned());
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            environment.push(format!("LISTEN_FDNAMES={names}"));
        }
    }
    for number in 3..count.saturating_add(3) {
        let path = PathBuf::from(format!("/proc/self/fd/{number}"));
        if rustix::fs::lstat(&path).is_err() {
            return Err(Error::new(format!("--preserve-fds: descriptor {number} is not open")));
        }
    }
    Ok(count)
}

/// The socket at which the process waits.
fn gate(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("start");
    let failed = || Error::errno("listen at", &path);
    let (address, _directory) = console::address(&path).map_err(failed())?;
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed())?;
    rustix::net::bind(&socket, &address).map_err(failed())?;
    rustix::net::listen(&socket, 16).map_err(failed())?;
    above(socket, &path)
}

fn hold(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join("gate");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(Error::errno("create", &path))?;
    let file = above(file, &path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(Error::errno("lock", &path))?;
    Ok(file)
}

/// Clear of the numbers that standard streams will take.
fn above(fd: OwnedFd, path: &Path) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(Error::errno("open", path))
}
