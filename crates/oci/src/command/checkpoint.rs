//! `checkpoint`: a running container, as files, by CRIU.

use std::path::Path;

use cata_runtime::cgroup::Cgroup;
use cata_runtime::plan::Plan;

use super::{Command, HELP, delete, start};
use crate::World;
use crate::args::{Given, switch, value};
use crate::bundle::Bundle;
use crate::criu::outside::{self, Outside};
use crate::criu::wire::Message;
use crate::criu::{self, Criu, Directories, Request, option};
use crate::error::{Error, Result};
use crate::store::{Container, Status};

pub(super) const COMMAND: Command = Command {
    name: "checkpoint",
    words: "ID",
    help: "save a running container in files, and end it",
    flags: &[
        criu::IMAGE_PATH,
        criu::WORK_PATH,
        value("parent-path", "", "DIR", "an earlier --pre-dump, relative to the checkpoint"),
        switch("leave-running", "", "let it run on"),
        switch("pre-dump", "", "save its memory only, and let it run on"),
        criu::TCP_ESTABLISHED,
        switch("tcp-skip-in-flight", "", "without connections that are being made"),
        switch("link-remap", "", "with open files that have no name any more"),
        criu::EXT_UNIX_SK,
        criu::SHELL_JOB,
        criu::FILE_LOCKS,
        criu::CGROUPS_MODE,
        criu::EMPTY_NS,
        criu::AUTO_DEDUP,
        criu::LAZY_PAGES,
        value("status-fd", "", "N", "a descriptor that gets a byte when `criu lazy-pages` may come"),
        value("page-server", "", "ADDRESS:PORT", "send memory to a `criu page-server`"),
        HELP,
    ],
    stop: usize::MAX,
    count: (1, 1),
    makes: false,
    run,
};

fn run(world: &World, given: &Given) -> Result<u8> {
    let mut container = world.store.get(super::id(given))?;
    let _lock = container.lock(&world.store)?;
    let status = container.status();
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::new(format!("a {} container cannot be checkpointed", status.word())));
    }
    let mut bundle = start::specification(&container)?;
    if let Some(linux) = bundle.spec.linux_mut() {
        // It has its cgroup, from whichever driver.
        linux.set_cgroups_path(None).set_resources(None);
    }
    let plan = bundle.plan(&container.record.id, &world.cache(), None)?;
    refuse(&plan)?;
    let directories = Directories::open(given, true, "dump.log")?;
    let mut options = options(given, &directories, &container, &bundle)?;
    let request = if given.on("pre-dump") {
        Request::PreDump
    } else {
        let outside = Outside::of(&plan, &container.record)?;
        options = outside.declare(options);
        outside.save(&directories.images, container.record.pid)?;
        Request::Dump
    };
    options = outside::declare_namespaces(options, &plan)?;
    world.timing.done("options");
    Criu::start(world)?.perform(request, &options, &directories, &mut |_| Ok(()))?;
    world.timing.done("criu");
    if !given.on("leave-running") && !given.on("pre-dump") {
        delete::remove(world, &container)?;
    }
    Ok(0)
}

/// What CRIU would restore as something else.
pub(super) fn refuse(plan: &Plan) -> Result<()> {
    let mapped = plan.mounts.iter().find(|mount| mount.idmap.is_some());
    mapped.map_or(Ok(()), |mount| {
        let target = mount.target.display();
        Err(Error::new(format!(
            "{target} is a mount with owners of its own (uidMappings), which CRIU does not restore"
        )))
    })
}

fn options(
    given: &Given,
    directories: &Directories,
    container: &Container,
    bundle: &Bundle,
) -> Result<Message> {
    let mut options = directories
        .options(given, bundle)?
        .number(option::PID, container.record.pid.into())
        .text(option::ROOT, &bundle.rootfs().to_string_lossy())
        .flag(option::LEAVE_RUNNING, given.on("leave-running"))
        .flag(option::LINK_REMAP, given.on("link-remap"))
        .flag(option::TCP_SKIP_IN_FLIGHT, given.on("tcp-skip-in-flight"));
    if let Some(directory) = container.cgroup().as_ref().and_then(Cgroup::freezing_directory) {
        options = options.text(option::FREEZE_CGROUP, &directory.to_string_lossy());
    }
    if let Some(parent) = given.get("parent-path").filter(|path| !path.is_empty()) {
        if Path::new(parent).is_absolute() {
            return Err(Error::usage("--parent-path is relative to the checkpoint"));
        }
        let path = directories.images.join(parent);
        if !path.is_dir() {
            return Err(Error::new(format!("--parent-path: {} is no directory", path.display())));
        }
        options = options.text(option::PARENT_IMG, parent).flag(option::TRACK_MEM, true);
    } else if given.on("pre-dump") {
        options = options.flag(option::TRACK_MEM, true);
    }
    if let Some(number) = given.number::<i32>("status-fd")? {
        options = options.number(option::STATUS_FD, number.into());
    }
    if let Some(server) = given.get("page-server").filter(|text| !text.is_empty()) {
        let (address, port) = server
            .rsplit_once(':')
            .and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)))
            .ok_or_else(|| Error::usage(format!("--page-server: `{server}` is not ADDRESS:PORT")))?;
        let server = Message::default().text(1, address).number(2, port.into());
        options = options.message(option::PAGE_SERVER, &server);
    }
    Ok(options)
}
