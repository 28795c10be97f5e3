//! `spawn`: a container's first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_sys::clone::Namespaces;

use crate::error::{SpawnError, Stage};
use crate::init;
use crate::parent::{Birth, Handles, Spawned, at};
use crate::plan::{NamespaceKind, NamespaceSource, Plan};

/// Makes a container's first process and returns once it runs its program.
///
/// # Errors
/// [`SpawnError`], whose [`SpawnError::exit_code`] is Docker's.
pub fn spawn(plan: &Plan, handles: &Handles<'_>) -> Result<Spawned, SpawnError> {
    let opened = open_joined(plan, handles)?;
    let joined: Vec<(NamespaceKind, BorrowedFd<'_>)> = handles
        .join
        .iter()
        .map(|(kind, fd)| (*kind, fd.as_fd()))
        .chain(opened.iter().map(|(kind, fd)| (*kind, fd.as_fd())))
        .collect();
    let is_joined = |kind| joined.iter().any(|(joined, _)| *joined == kind);
    if plan.makes(NamespaceKind::User) && !joined.is_empty() {
        return Err(SpawnError::Unsupported("a new user namespace together with somebody else's namespaces"));
    }
    let flags = plan
        .namespaces
        .iter()
        .filter(|n| n.source == NamespaceSource::New && !is_joined(n.kind))
        .map(|n| clone_flag(n.kind))
        .fold(0, |flags, flag| flags | flag);
    let birth = Birth {
        namespaces: Namespaces(flags),
        pid_namespace: joined.iter().find(|(kind, _)| *kind == NamespaceKind::Pid).map(|(_, fd)| *fd),
        uid_mappings: &plan.uid_mappings,
        gid_mappings: &plan.gid_mappings,
        oom_score_adj: plan.process.oom_score_adj,
        cgroup: handles.cgroup,
    };
    birth.give(|channel, proof| match init::first(plan, &joined, handles.stdio, channel, proof) {
        Err(failure) => failure,
    })
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
