//! The new process, from its first instruction to its program's. This list of steps is the whole truth.
//!
//! It is a copy of the caller with one thread, so that it may allocate; it has the caller's rights until
//! `lockdown`, and believes nothing that the container's root file system says: paths in it are resolved
//! beneath `Root` only, and `/proc` and `/dev/null` are the host's, opened before the root changes.

mod copy;
mod device;
mod host;
mod identity;
mod label;
mod lockdown;
mod mask;
mod mount;
mod program;
mod reaper;
mod root;
mod terminal;
mod tree;

pub use label::{has_apparmor, has_selinux};

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::clone::SoleThread;
use cata_sys::mount::Depth;
use cata_sys::path::Root;
use cata_sys::title::Title;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::error::Stage;
use crate::handshake::{Channel, Failure, Message, Moment};
use crate::hook;
use crate::idmap::Trees;
use crate::manner::Manner;
use crate::namespace::link_type;
use crate::plan::{ExecPlan, NamespaceKind, Plan, Process};

/// What the new process has of its caller.
pub(crate) struct Inherited<'a> {
    pub(crate) joined: &'a [(NamespaceKind, BorrowedFd<'a>)],
    /// Whether the user namespace is new.
    pub(crate) makes_user: bool,
    pub(crate) trees: Trees,
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    pub(crate) manner: Manner<'a>,
}

/// The rest of a container's first process.
pub(crate) fn first(
    plan: &Plan,
    inherited: Inherited<'_>,
    channel: &mut Channel,
    proof: SoleThread,
) -> Result<Infallible, Failure> {
    let Inherited { joined, makes_user, trees, stdio, manner } = inherited;
    wake(channel)?;
    for kind in NamespaceKind::ALL {
        let Some((_, fd)) = joined.iter().find(|(k, _)| *k == kind && !born_in(kind, makes_user)) else {
            continue;
        };
        let link = Some(link_type(kind));
        match rustix::thread::move_into_link_name_space(*fd, link) {
            // It was made there.
            Err(rustix::io::Errno::INVAL) if kind == NamespaceKind::User => {}
            result => result.map_err(Failure::at(Stage::JoinNamespace, kind.file_name()))?,
        }
    }
    if plan.namespace(NamespaceKind::User).is_some() {
        identity::become_root()?;
    }
    let placed = placed(plan)?;
    let plan = placed.as_ref().unwrap_or(plan);
    let is_joined = |kind| joined.iter().any(|(k, _)| *k == kind);
    if plan.makes(NamespaceKind::Cgroup) && !is_joined(NamespaceKind::Cgroup) {
        cata_sys::namespace::unshare(UnshareFlags::NEWCGROUP)
            .map_err(Failure::at(Stage::MakeNamespace, "cgroup"))?;
    }
    // The host's `/proc` is still there to ask.
    let title =
        if plan.init { Some(Title::find().map_err(Failure::at(Stage::Reaper, "title"))?) } else { None };
    let home = match plan.namespace(NamespaceKind::Mount) {
        None => Some(root::leave_home()?),
        Some(_) => None,
    };
    let host = host::Host::open()?;
    let labels = label::open(&plan.process, plan.init)?;
    host.write_sysctls(&plan.sysctls)?;
    if plan.makes(NamespaceKind::Uts) && !is_joined(NamespaceKind::Uts) {
        set_names(plan)?;
    }
    let prepared = prepare_root(plan, (&host, home), trees, channel)?;
    become_like(plan.personality)?;
    if let Some(policy) = &plan.memory_policy {
        cata_sys::schedule::set_memory_policy(policy.mode, &policy.nodes)
            .map_err(Failure::at(Stage::Schedule, "memory policy"))?;
    }
    let reaper = title.map(|title| reaper::Reaper { proof, title });
    let end = lockdown::End { process: &plan.process, prepared, stdio, manner, labels };
    lockdown::finish(end, &plan.hooks.start_container, channel, reaper)
}

/// Systemd has made the cgroup around this process: only now it is known where that is.
fn placed(plan: &Plan) -> Result<Option<Plan>, Failure> {
    let Some(unit) = plan.cgroup.as_ref().and_then(|cgroup| cgroup.unit.as_ref()) else { return Ok(None) };
    let layout = crate::cgroup::Layout::detect().map_err(|error| Failure::cgroup(&error))?;
    let directories = layout.own_directories(&unit.name);
    let cgroup = Some(crate::cgroup::CgroupPlan { directories, ..Default::default() });
    Ok(Some(Plan { cgroup, ..plan.clone() }))
}

/// Of which of somebody else's namespaces the caller made it a member: a pid namespace only children get
/// into, and from inside a new user namespace nobody gets into any other.
pub(crate) fn born_in(kind: NamespaceKind, makes_user: bool) -> bool {
    use NamespaceKind::{Cgroup, Ipc, Network, Pid, Uts};
    kind == Pid || (makes_user && matches!(kind, Cgroup | Ipc | Network | Uts))
}

/// Where one more process goes.
pub(crate) struct Into<'a> {
    /// A pidfd of the container's first process.
    pub(crate) container: BorrowedFd<'a>,
    /// Those that it does not have yet.
    pub(crate) namespaces: ThreadNameSpaceType,
    /// The container's root, where no namespace has it.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// In the container's user namespace.
    pub(crate) becomes_root: bool,
}

/// The rest of one more process in a running container.
pub(crate) fn further(
    plan: &ExecPlan,
    into: &Into<'_>,
    stdio: [BorrowedFd<'_>; 3],
    manner: Manner<'_>,
    channel: &mut Channel,
) -> Result<Infallible, Failure> {
    let process = &plan.process;
    wake(channel)?;
    if let Some((initial, _)) = process.affinity.as_ref().filter(|(initial, _)| !initial.is_empty()) {
        lockdown::stay_on(initial)?;
    }
    let labels = label::open(process, false)?;
    if !into.namespaces.is_empty() {
        rustix::thread::move_into_thread_name_spaces(into.container, into.namespaces)
            .map_err(Failure::at(Stage::JoinNamespace, "of the container"))?;
    }
    if let Some(root) = into.root {
        root::enter(root)?;
    }
    if into.becomes_root {
        identity::become_root()?;
    }
    let prepared = prepare_joined(process, channel)?;
    become_like(plan.personality)?;
    let end = lockdown::End { process, prepared, stdio, manner, labels };
    lockdown::finish(end, &[], channel, None)
}

/// What a process needs from its root before it is locked down.
pub(super) struct Prepared {
    pub(super) identity: crate::user::Identity,
    pub(super) cwd: OwnedFd,
    /// The slave side.
    pub(super) terminal: Option<OwnedFd>,
}

/// Asks to die with the caller, waits until it has done its part, and leaves its session.
pub(crate) fn wake(channel: &Channel) -> Result<(), Failure> {
    die_with_caller(channel)?;
    match channel.wait_for_go() {
        Ok(true) => {}
        Ok(false) => return Err(Failure::Orphaned),
        Err(errno) => return Err(Failure::at(Stage::Handshake, "")(errno)),
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Failure::at(Stage::Handshake, "PR_SET_DUMPABLE"))?;
    // Modes are those that plans give.
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::setsid().map(drop).map_err(Failure::at(Stage::Handshake, "setsid"))
}

/// The kernel kills this process when its parent ends. The parent may have ended just before: then its end
/// of the channel is closed. (A change of ids cancels the request, so it is repeated after that.)
pub(super) fn die_with_caller(channel: &Channel) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at(Stage::Handshake, "PR_SET_PDEATHSIG"))?;
    if channel.is_orphaned() { Err(Failure::Orphaned) } else { Ok(()) }
}

fn prepare_joined(process: &Process, channel: &Channel) -> Result<Prepared, Failure> {
    let root = Root::open_trusted(Path::new("/")).map_err(Failure::at(Stage::Root, "/"))?;
    let identity = identity::resolve(&root, &process.user)?;
    let terminal = terminal::open((&root, Path::new(terminal::PTMX)), process, identity.uid, channel)?;
    let cwd = lockdown::open_cwd(&root, &process.cwd)?;
    Ok(Prepared { identity, cwd, terminal })
}

/// Everything that is mounted, and the change into it.
fn prepare_root(
    plan: &Plan,
    (host, home): (&host::Host, Option<OwnedFd>),
    trees: Trees,
    channel: &Channel,
) -> Result<Prepared, Failure> {
    // Copies of the host's trees first: they keep the propagation that the next step takes from ours.
    let sources = mount::sources(&plan.mounts, trees.mounts)?;
    cata_sys::mount::set_propagation(Path::new("/"), cata_sys::mount::attribute::PRIVATE, Depth::Recursive)
        .map_err(Failure::at(Stage::Root, "/"))?;
    let mut tree = tree::Tree::new(root::attach(&plan.root, trees.root, plan.hooks.before_root())?);
    mount::all(&mut tree, plan, sources, channel)?;
    device::all(&tree, plan)?;
    if plan.hooks.before_root() {
        let state = ask(channel, Moment::CreateRuntime)?;
        hook::all("createContainer", &plan.hooks.create_container, &state).map_err(Failure::Hook)?;
    }
    let process = &plan.process;
    let identity = identity::resolve(&tree.root, &process.user)?;
    let terminal = terminal::open(tree.place(Path::new(terminal::PTMX)), process, identity.uid, channel)?;
    if let Some(slave) = &terminal {
        terminal::as_console(&tree, slave.as_fd())?;
    }
    lockdown::make_cwd(&tree.root, &process.cwd)?;
    let cwd = lockdown::open_cwd(&tree.root, &process.cwd)?;
    mask::all(&tree, plan, host)?;
    let Some(home) = home else {
        root::finish(&tree.root, plan.readonly_root, plan.root_propagation)?;
        return Ok(Prepared { identity, cwd, terminal });
    };
    // The directory found above is beneath the host's root.
    drop(cwd);
    let root = root::finish_at_home(&tree.root, plan.readonly_root, &home)?;
    let cwd = lockdown::open_cwd(&root, &process.cwd)?;
    Ok(Prepared { identity, cwd, terminal })
}

/// What the kernel says of itself to this process.
fn become_like(persona: Option<u32>) -> Result<(), Failure> {
    let Some(persona) = persona else { return Ok(()) };
    cata_sys::schedule::set_personality(persona).map_err(Failure::at(Stage::Schedule, "personality"))
}

fn set_names(plan: &Plan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Failure::at(Stage::Hostname, name))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(Failure::at(Stage::Hostname, name))?;
    }
    Ok(())
}

/// Lets the caller do its part, and gets the container's state.
pub(super) fn ask(channel: &Channel, moment: Moment) -> Result<OwnedFd, Failure> {
    let failed = || Failure::at(Stage::Handshake, "hooks");
    channel.send(&Message::Hooks(moment), None).map_err(failed())?;
    channel.wait_for_answer().map_err(failed())?.ok_or(Failure::Orphaned)
}

/// Tells the caller what the host does not have.
pub(super) fn withhold(channel: &Channel, what: String) -> Result<(), Failure> {
    channel.send(&Message::Withheld(what), None).map_err(Failure::at(Stage::Handshake, ""))
}
