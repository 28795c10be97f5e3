//! `spawn`: a container's first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_sys::clone::Namespaces;
use rustix::fs::{FileType, Uid};

use crate::error::{SpawnError, Stage, at};
use crate::idmap;
use crate::init;
use crate::manner::{Alone, Attendant, Manner, Spawned};
use crate::parent::{Birth, Handles};
use crate::plan::{NamespaceKind, NamespaceSource, Plan};

/// Makes a container's first process and returns once it runs its program.
///
/// # Errors
/// [`SpawnError`], whose [`SpawnError::exit_code`] is Docker's.
pub fn spawn(plan: &Plan, handles: &Handles<'_>) -> Result<Spawned, SpawnError> {
    spawn_with(plan, handles, Manner::default(), &mut Alone)
}

/// [`spawn`], in another manner and with company: with a gate it returns once the process waits there.
///
/// # Errors
/// [`SpawnError`]; then nothing of the process is left.
pub fn spawn_with(
    plan: &Plan,
    handles: &Handles<'_>,
    manner: Manner<'_>,
    attendant: &mut dyn Attendant,
) -> Result<Spawned, SpawnError> {
    let opened = open_joined(plan, handles)?;
    let joined: Vec<(NamespaceKind, BorrowedFd<'_>)> = handles
        .join
        .iter()
        .map(|(kind, fd)| (*kind, fd.as_fd()))
        .chain(opened.iter().map(|(kind, fd)| (*kind, fd.as_fd())))
        .collect();
    refuse_own_mounts(&joined)?;
    let is_joined = |kind| joined.iter().any(|(joined, _)| *joined == kind);
    let flags = plan
        .namespaces
        .iter()
        .filter(|n| n.source == NamespaceSource::New && !is_joined(n.kind))
        .map(|n| clone_flag(n.kind))
        .fold(0, |flags, flag| flags | flag);
    // What only the caller may do, and the new process inherits.
    let user = joined.iter().find(|(kind, _)| *kind == NamespaceKind::User).map(|(_, fd)| *fd);
    let trees = idmap::trees(plan, user)?;
    if let Some(root) = plan.uid_mappings.iter().find(|m| m.container == 0) {
        lend_pipes(&handles.stdio, root.host);
    }
    let makes_user = plan.makes(NamespaceKind::User) && user.is_none();
    let mappings = |of| if makes_user { of } else { &[][..] };
    let time = (plan.makes(NamespaceKind::Time) && !is_joined(NamespaceKind::Time))
        .then_some(plan.time_offsets.as_slice());
    let birth = Birth {
        time,
        user: user.filter(|_| flags != 0),
        enter: joined
            .iter()
            .filter(|(kind, _)| *kind != NamespaceKind::Pid && init::born_in(*kind, makes_user))
            .copied()
            .collect(),
        namespaces: Namespaces(flags),
        net_devices: (
            &plan.net_devices,
            joined.iter().find(|(kind, _)| *kind == NamespaceKind::Network).map(|(_, fd)| *fd),
        ),
        pid_namespace: joined.iter().find(|(kind, _)| *kind == NamespaceKind::Pid).map(|(_, fd)| *fd),
        uid_mappings: mappings(plan.uid_mappings.as_slice()),
        gid_mappings: mappings(plan.gid_mappings.as_slice()),
        oom_score_adj: plan.process.oom_score_adj,
        cgroup: handles.cgroup,
    };
    let inherited = init::Inherited { joined: &joined, makes_user, trees, stdio: handles.stdio, manner };
    birth.give(attendant, |channel, proof| match init::first(plan, inherited, channel, proof) {
        Err(failure) => failure,
    })
}

/// What belongs to nobody inside cannot be given to the container's user there. Root there can give it on.
pub(crate) fn lend_pipes(streams: &[BorrowedFd<'_>; 3], root: u32) {
    for stream in streams {
        let is_pipe = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if rustix::fs::fstat(stream).is_ok_and(is_pipe) {
            // Only opening it again by name depends on it.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(root)), None);
        }
    }
}

/// The root changes in a joined mount namespace too: it must not be the caller's.
fn refuse_own_mounts(joined: &[(NamespaceKind, BorrowedFd<'_>)]) -> Result<(), SpawnError> {
    let Some((_, mounts)) = joined.iter().find(|(kind, _)| *kind == NamespaceKind::Mount) else {
        return Ok(());
    };
    let own = rustix::fs::stat("/proc/self/ns/mnt").map_err(at(Stage::JoinNamespace, "mnt"))?;
    let theirs = rustix::fs::fstat(mounts).map_err(at(Stage::JoinNamespace, "mnt"))?;
    if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino) {
        return Err(SpawnError::Unsupported("a container in its runtime's own mount namespace"));
    }
    Ok(())
}

/// Opens the namespaces that the plan names by path and nobody handed in.
fn open_joined(plan: &Plan, handles: &Handles<'_>) -> Result<Vec<(NamespaceKind, OwnedFd)>, SpawnError> {
    use rustix::fs::{Mode, OFlags};
    let mut opened = Vec::new();
    for namespace in &plan.namespaces {
        let NamespaceSource::Path(path) = &namespace.source else { continue };
        if handles.join.iter().any(|(kind, _)| *kind == namespace.kind) {
            continue;
        }
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(at(Stage::JoinNamespace, path.display()))?;
        opened.push((namespace.kind, fd));
    }
    Ok(opened)
}

/// The cgroup namespace is not made by clone: its root is the cgroup at that moment, and version 1 cgroups
/// are joined after it.
fn clone_flag(kind: NamespaceKind) -> u64 {
    let flag = match kind {
        NamespaceKind::User => rustix::thread::UnshareFlags::NEWUSER,
        NamespaceKind::Mount => rustix::thread::UnshareFlags::NEWNS,
        NamespaceKind::Pid => rustix::thread::UnshareFlags::NEWPID,
        NamespaceKind::Network => rustix::thread::UnshareFlags::NEWNET,
        NamespaceKind::Ipc => rustix::thread::UnshareFlags::NEWIPC,
        NamespaceKind::Uts => rustix::thread::UnshareFlags::NEWUTS,
        NamespaceKind::Time | NamespaceKind::Cgroup => rustix::thread::UnshareFlags::empty(),
    };
    u64::from(flag.bits())
}
