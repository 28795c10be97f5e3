//! `restore`: a container from a checkpoint, by CRIU.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cata_runtime::Spawned;
use cata_runtime::plan::{MountKind, Plan};
use cata_sys::mount::Depth;
use cata_sys::path::{Make, Root};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::UnshareFlags;

use super::create::{self, New};
use super::{Command, HELP, checkpoint, start};
use crate::World;
use crate::args::{Given, switch, value};
use crate::criu::outside::{self, Outside};
use crate::criu::wire::Message;
use crate::criu::{self, Criu, Directories, Notice, Request, option};
use crate::error::{Error, Result};
use crate::store::{self, Container, Status};
use crate::{console, hooks};

pub(super) const COMMAND: Command = Command {
    name: "restore",
    words: "ID",
    help: "make a container of a checkpoint, which goes on where it was, and wait for it",
    flags: &[
        create::BUNDLE,
        criu::IMAGE_PATH,
        criu::WORK_PATH,
        create::CONSOLE,
        create::PID_FILE,
        switch("detach", "d", "do not wait"),
        switch("keep", "", "keep what is known of the container when it has ended"),
        criu::TCP_ESTABLISHED,
        criu::EXT_UNIX_SK,
        criu::SHELL_JOB,
        criu::FILE_LOCKS,
        criu::CGROUPS_MODE,
        criu::EMPTY_NS,
        criu::AUTO_DEDUP,
        criu::LAZY_PAGES,
        value("lsm-profile", "", "TYPE:NAME", "another profile of AppArmor or SELinux"),
        value("lsm-mount-context", "", "CONTEXT", "another SELinux context of its file systems"),
        create::NO_PIVOT,
        switch("no-subreaper", "", "leave orphans to others"),
        HELP,
    ],
    stop: usize::MAX,
    count: (1, 1),
    makes: true,
    run,
};

fn run(world: &World, given: &Given) -> Result<u8> {
    create::in_front(world, given, |new| restore(world, given, new))
}

fn restore(world: &World, given: &Given, new: &mut New<'_>) -> Result<Spawned> {
    checkpoint::refuse(&new.plan)?;
    let bundle = start::specification(&new.container)?;
    let outside = Outside::load(&images(given))?;
    if outside.tied && given.on("detach") {
        return Err(Error::new(
            "the container was made by a `run` without --detach and dies with its runtime: \
             it can be restored only without --detach",
        ));
    }
    new.container.record.tied = outside.tied;
    new.make_cgroup()?;
    // What is mounted for CRIU goes with this program, however it ends.
    let root = own_mounts(&new.container.dir, &bundle.rootfs(), &new.plan)?;
    let directories = Directories::open(given, false, "restore.log")?;
    let mut options = directories
        .options(given, &bundle)?
        .text(option::ROOT, &root.0.to_string_lossy())
        .flag(option::EVASIVE_DEVICES, true)
        // The container's process becomes a child of this program.
        .flag(option::RST_SIBLING, true);
    for (name, field) in
        [("lsm-profile", option::LSM_PROFILE), ("lsm-mount-context", option::LSM_MOUNT_CONTEXT)]
    {
        if let Some(text) = given.get(name).filter(|text| !text.is_empty()) {
            options = options.text(field, text);
        }
    }
    options = outside.provide(options, &new.plan)?;
    let (options, _namespaces) = outside::provide_namespaces(options, &new.plan)?;
    confine(world, &new.plan)?;
    let criu = Criu::start(world)?;
    let own = Pid::from_raw(criu.pid()).ok_or_else(|| Error::new("criu has no process"))?;
    new.tried = true;
    // Everything that it makes is made where it is itself.
    new.place(own)?;
    let options = cgroup_roots(options, criu.pid())?;
    let mut restored = None;
    criu.perform(Request::Restore, &options, &directories, &mut |notice| hear(new, notice, &mut restored))?;
    let Some(Restored { spawned: Some(spawned), terminal }) = restored else {
        return Err(Error::new("criu does not say which process it has restored"));
    };
    let state = hooks::text(&new.container.record, Status::Running, spawned.pid.as_raw_nonzero().get());
    if let Err(error) = new.hooks.started(&state) {
        let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
        return Err(Error::new(error));
    }
    Ok(Spawned { terminal, ..spawned })
}

/// What CRIU does not restore, and what it makes inherits.
fn confine(world: &World, plan: &Plan) -> Result<()> {
    // The caller's keys are never the container's.
    let _ = cata_sys::keyring::leave_session();
    if plan.process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| Error::new(format!("no_new_privs: {e}")))?;
    }
    let ambient = plan.process.capabilities.as_ref().is_some_and(|sets| sets.ambient != 0);
    if ambient {
        world.log.warning("criu does not restore ambient capabilities");
    }
    Ok(())
}

fn images(given: &Given) -> PathBuf {
    given.get("image-path").filter(|path| !path.is_empty()).unwrap_or("checkpoint").into()
}

/// What is known of the new process so far.
#[derive(Debug, Default)]
struct Restored {
    spawned: Option<Spawned>,
    terminal: Option<OwnedFd>,
}

/// CRIU has come to a point at which something is to be done for the container.
fn hear(new: &mut New<'_>, notice: Notice, restored: &mut Option<Restored>) -> Result<()> {
    let restored = restored.get_or_insert_default();
    match notice.script.as_str() {
        "setup-namespaces" => {
            let state = hooks::text(&new.container.record, Status::Creating, notice.pid);
            let created = hooks::text(&new.container.record, Status::Created, notice.pid);
            new.hooks.create(&created, &state).map_err(Error::new)
        }
        // Its terminal has nobody at the other side yet.
        "orphan-pts-master" => {
            let master = notice.descriptor.ok_or_else(|| Error::new("criu sends no terminal"))?;
            match new.given.get("console-socket") {
                Some(socket) => console::hand_over(Path::new(socket), master.as_fd()),
                None => {
                    restored.terminal = Some(master);
                    Ok(())
                }
            }
        }
        "post-restore" => {
            let failed = || Error::new(format!("process {} of criu's is not there", notice.pid));
            let pid = Pid::from_raw(notice.pid).ok_or_else(failed)?;
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| failed())?;
            remember(&mut new.container, notice.pid)?;
            create::write_pid(new.given, notice.pid)?;
            restored.spawned = Some(Spawned { pid, pidfd, terminal: None, withheld: Vec::new() });
            Ok(())
        }
        _ => Ok(()),
    }
}

fn remember(container: &mut Container, pid: i32) -> Result<()> {
    container.record.started = store::started(pid).unwrap_or(0);
    container.record.pid = pid;
    container.save()
}

/// The root as CRIU sees it, for as long as it needs it.
#[derive(Debug)]
struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Goes into a mount namespace of its own and shows the root there as a mount, with everything that is mounted in
/// it from outside, which CRIU mounts once more, at places that exist.
fn own_mounts(dir: &Path, rootfs: &Path, plan: &Plan) -> Result<Shown> {
    let failed = || Error::errno("mount for criu", rootfs);
    cata_sys::namespace::unshare(UnshareFlags::NEWNS).map_err(failed())?;
    let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM;
    cata_sys::mount::set_propagation(Path::new("/"), slave.bits().into(), Depth::Recursive)
        .map_err(failed())?;
    let place = dir.join(store::RESTORED);
    match DirBuilder::new().mode(0o700).create(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", &place)(error));
        }
        _ => {}
    }
    let place = std::fs::canonicalize(&place).map_err(Error::io("open", &place))?;
    let tree = cata_sys::mount::clone_path(rootfs, Depth::Recursive).map_err(failed())?;
    let target = rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed())?;
    cata_sys::mount::attach(tree.as_fd(), target.as_fd()).map_err(failed())?;
    let shown = Shown(place);
    make_targets(&Root::new(tree), plan)?;
    Ok(shown)
}

/// A root that was copied without them gets the places of its mounts, as at `create`. What is on a file system of
/// memory, or beneath the host's own files, comes with these.
fn make_targets(root: &Root, plan: &Plan) -> Result<()> {
    for (nth, mount) in plan.mounts.iter().enumerate() {
        let above = plan.mounts.get(..nth).unwrap_or_default();
        if mount.kind == MountKind::Remount
            || above.iter().any(|above| mount.target.starts_with(&above.target))
        {
            continue;
        }
        let file = matches!(&mount.kind, MountKind::Bind(bind) if !bind.source.is_dir());
        root.make(&mount.target, if file { Make::File } else { Make::Directory }, 0o755)
            .map_err(Error::errno("create", &mount.target))?;
    }
    Ok(())
}

/// CRIU puts processes below these, in place of where they were.
fn cgroup_roots(mut options: Message, pid: i32) -> Result<Message> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for controller in controllers.split(',') {
            let one = Message::default().text(1, controller).text(2, path);
            options = options.message(option::CG_ROOT, &one);
        }
    }
    Ok(options)
}
