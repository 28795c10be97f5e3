//! `exec`: one more process in a container.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cata_runtime::cgroup::Cgroup;
use cata_runtime::plan::{self, Listener};
use cata_runtime::{Attendant, ExecPlan, Handles, Manner, exec_with};
use cata_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, User};
use rustix::process::Pid;

use super::{Command, HELP, create, start};
use crate::World;
use crate::args::{Given, switch, value};
use crate::bundle::{self, Bundle};
use crate::error::{Error, Result};
use crate::store::{Container, Status};
use crate::wait::Front;
use crate::{console, hooks};

pub(super) const COMMAND: Command = Command {
    name: "exec",
    words: "ID [COMMAND [WORDS]]",
    help: "run one more process in a container",
    flags: &[
        value("console-socket", "", "PATH", "a unix socket that gets the terminal's master side"),
        value("cwd", "", "DIR", "working directory"),
        value("env", "e", "NAME=VALUE", "set a variable"),
        switch("tty", "t", "a terminal of its own"),
        value("user", "u", "UID[:GID]", "as whom"),
        value("additional-gids", "g", "GID", "a further group"),
        value("process", "p", "FILE", "everything about the process, as in a specification"),
        switch("detach", "d", "do not wait"),
        value("pid-file", "", "FILE", "write the process's number there"),
        value("process-label", "", "LABEL", "SELinux label"),
        value("apparmor", "", "PROFILE", "AppArmor profile"),
        switch("no-new-privs", "", "never gain rights by exec"),
        value("cap", "c", "CAPABILITY", "one more capability"),
        value("preserve-fds", "", "N", "hand on so many descriptors from 3 on"),
        value("cgroup", "", "PATH", "a cgroup below the container's, `[CONTROLLER,…:]PATH`"),
        switch("ignore-paused", "", "also in a paused container"),
        switch("no-subreaper", "", "leave orphans to others"),
        HELP,
    ],
    stop: 1,
    count: (1, usize::MAX),
    makes: true,
    run,
};

/// With what runc ends when the process could not be started.
const NOT_STARTED: u8 = 255;

fn run(world: &World, given: &Given) -> Result<u8> {
    exec(world, given).map_err(|error| error.code(NOT_STARTED))
}

fn exec(world: &World, given: &Given) -> Result<u8> {
    let container = world.store.get(super::id(given))?;
    match container.status() {
        Status::Created | Status::Running => {}
        Status::Paused if given.on("ignore-paused") => {}
        Status::Paused => return Err(Error::new("cannot exec in a paused container (use --ignore-paused)")),
        status => return Err(Error::new(format!("cannot exec in a {} container", status.word()))),
    }
    let bundle = start::specification(&container)?;
    let mut ignored = Vec::new();
    let mut process = match given.get("process") {
        Some(path) => bundle::process(Path::new(path), &mut ignored)?,
        None => change(&bundle, given)?,
    };
    ignored.iter().for_each(|what| world.log.warning(what));
    if process.exec_cpu_affinity().is_none() {
        let default = bundle.spec.process().as_ref().and_then(|p| p.exec_cpu_affinity().clone());
        process.set_exec_cpu_affinity(default);
    }
    let (profile, filter) = bundle.filter(&world.cache())?;
    world.timing.done("specification");
    let planned =
        plan::process(&process, profile, filter).map_err(|e| Error::chain("invalid process", &e))?;
    let preserve = create::preserved(given, None)?;
    create::check_terminal(planned.terminal, given)?;
    let (_, pidfd) = container.process().ok_or_else(|| Error::new("cannot exec in a stopped container"))?;
    let detach = given.on("detach");
    let front = if detach { None } else { Some(Front::new()?) };
    if !detach && !given.on("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| Error::new(format!("become a subreaper: {e}")))?;
    }
    let cgroup = cgroup(&container, given)?;
    let mut handles = Handles::new(rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    if let Some(cgroup) = &cgroup {
        handles = handles.cgroup(cgroup);
    }
    let manner = Manner { gate: None, outlive: detach, preserve };
    let mut company = Company { container: &container, listener: start::listener(&bundle) };
    let persona = bundle.spec.linux().as_ref().and_then(|linux| linux.personality().as_ref());
    let personality =
        persona.map(plan::personality).transpose().map_err(|e| Error::chain("invalid specification", &e))?;
    let plan = ExecPlan { process: planned, personality };
    world.timing.done("plan");
    let mut spawned = exec_with(&plan, pidfd.as_fd(), &handles, manner, &mut company)
        .map_err(|e| Error::chain("exec failed: unable to start container process", &e))?;
    world.timing.done("process");
    spawned.withheld.iter().for_each(|what| world.log.warning(what));
    if let (Some(socket), Some(master)) = (given.get("console-socket"), &spawned.terminal) {
        let handed = console::hand_over(Path::new(socket), master.as_fd());
        if let Err(error) = handed {
            let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
            return Err(error);
        }
        spawned.terminal = None;
    }
    create::write_pid(given, spawned.pid.as_raw_nonzero().get())?;
    let Some(front) = front else { return Ok(0) };
    let code = front.stand(&spawned)?;
    world.timing.done("program");
    Ok(code)
}

/// That of the container, or one below it: `[controller,…:]path`.
fn cgroup(container: &Container, given: &Given) -> Result<Option<Cgroup>> {
    let mut cgroup = container.cgroup();
    for wanted in given.all("cgroup") {
        let own = cgroup.ok_or_else(|| Error::new("--cgroup: the container has no cgroup"))?;
        let (controllers, path) = wanted.rsplit_once(':').unwrap_or(("", wanted));
        let controllers: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        cgroup =
            Some(own.below(path, &controllers).map_err(|e| Error::chain(&format!("--cgroup {wanted}"), &e))?);
    }
    Ok(cgroup)
}

/// The container's own process, changed by flags.
fn change(bundle: &Bundle, given: &Given) -> Result<Process> {
    let mut process =
        bundle.spec.process().clone().ok_or_else(|| Error::new("the specification has no process"))?;
    let words: Vec<String> = given.words.iter().skip(1).cloned().collect();
    if words.is_empty() {
        return Err(Error::usage("process args cannot be empty"));
    }
    process.set_args(Some(words));
    // Not everything of the first process is for the others.
    process.set_terminal(Some(given.on("tty")));
    if let Some(cwd) = given.get("cwd") {
        process.set_cwd(PathBuf::from(cwd));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in given.all("env") {
        environment.retain(|known| name(known) != name(variable));
        environment.push(variable.to_owned());
    }
    process.set_env(Some(environment));
    if let Some(label) = given.get("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = given.get("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if given.get("no-new-privs").is_some() {
        process.set_no_new_privileges(Some(given.on("no-new-privs")));
    }
    let user = user(process.user(), given)?;
    process.set_user(user);
    let capabilities = capabilities(&process, given)?;
    process.set_capabilities(capabilities);
    Ok(process)
}

fn user(own: &User, given: &Given) -> Result<User> {
    let mut user = own.clone();
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| Error::usage(format!("--user: `{text}` is not a number")))
    };
    if let Some(text) = given.get("user") {
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(number(uid)?);
        if let Some(gid) = gid {
            user.set_gid(number(gid)?);
        }
    }
    let further = given.all("additional-gids").map(number).collect::<Result<Vec<u32>>>()?;
    if !further.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(further);
        user.set_additional_gids(Some(groups));
    }
    Ok(user)
}

/// Those of `--cap` in every set but the inheritable and ambient ones, which runc leaves alone too.
fn capabilities(process: &Process, given: &Given) -> Result<Option<LinuxCapabilities>> {
    let more = given
        .all("cap")
        .map(|name| {
            let short = name.to_ascii_uppercase();
            let short = short.strip_prefix("CAP_").unwrap_or(&short).to_owned();
            short.parse::<Capability>().map_err(|_| Error::usage(format!("--cap: no capability `{name}`")))
        })
        .collect::<Result<HashSet<Capability>>>()?;
    if more.is_empty() {
        return Ok(process.capabilities().clone());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding);
    sets.set_effective(effective);
    sets.set_permitted(permitted);
    Ok(Some(sets))
}

struct Company<'a> {
    container: &'a Container,
    listener: Option<Listener>,
}

impl Attendant for Company<'_> {
    fn listener(&mut self, pid: Pid, listener: OwnedFd) -> std::result::Result<(), String> {
        let state = hooks::state(&self.container.record, Status::Running, self.container.record.pid);
        create::tell_listener(self.listener.as_ref(), &state, pid, &listener)
    }
}
