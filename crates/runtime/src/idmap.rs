//! Trees of the host that only the caller may copy: those whose files get other ids, and, for a new user
//! namespace, those that its root could not even reach. The new process inherits them.

use std::os::fd::{AsFd, OwnedFd};

use cata_sys::clone::{Namespaces, Side, SoleThread};
use cata_sys::mount::Depth;
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::error::{SpawnError, Stage};
use crate::parent::{at, open_path, write_maps};
use crate::plan::{IdMap, IdMapping, MountKind, NamespaceKind, NamespaceSource, Plan, Root};

/// Detached copies.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    pub(crate) root: Option<OwnedFd>,
    /// One place for each mount of the plan.
    pub(crate) mounts: Vec<Option<OwnedFd>>,
}

/// What this plan needs of them.
pub(crate) fn trees(plan: &Plan) -> Result<Trees, SpawnError> {
    let unreachable = plan.namespace(NamespaceKind::User).is_some();
    let root = match &plan.root {
        Root::Path(path) if unreachable => {
            let tree = cata_sys::mount::clone_path(path, Depth::Recursive);
            Some(tree.map_err(at(Stage::Root, path.display()))?)
        }
        _ => None,
    };
    let mounts = if unreachable || plan.mounts.iter().any(|mount| mount.idmap.is_some()) {
        sources(plan, unreachable)?
    } else {
        Vec::new()
    };
    Ok(Trees { root, mounts })
}

fn sources(plan: &Plan, all: bool) -> Result<Vec<Option<OwnedFd>>, SpawnError> {
    // Most mounts are mapped alike.
    let mut known: Vec<(&[IdMapping], &[IdMapping], OwnedFd)> = Vec::new();
    let mut trees = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let MountKind::Bind(bind) = &mount.kind else {
            trees.push(None);
            continue;
        };
        // Another container's mounts are copied where they are.
        if bind.namespace.is_some() || (mount.idmap.is_none() && !all) {
            trees.push(None);
            continue;
        }
        let failed = |errno| at(Stage::MountSource, bind.source.display())(errno);
        let depth = if bind.recursive { Depth::Recursive } else { Depth::This };
        let tree = cata_sys::mount::clone_path(&bind.source, depth).map_err(failed)?;
        let Some(idmap) = &mount.idmap else {
            trees.push(Some(tree));
            continue;
        };
        let (uids, gids) = mappings(plan, idmap);
        let namespace = if uids.is_empty() {
            joined_namespace(plan)?
        } else if let Some((.., namespace)) = known.iter().find(|(u, g, _)| (*u, *g) == (uids, gids)) {
            namespace.try_clone().map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?
        } else {
            let namespace = user_namespace(uids, gids)?;
            let copy = namespace.try_clone();
            known.push((uids, gids, namespace));
            copy.map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?
        };
        let depth = if idmap.recursive { Depth::Recursive } else { Depth::This };
        cata_sys::mount::set_idmap(tree.as_fd(), depth, namespace.as_fd())
            .map_err(at(Stage::MountAttributes, format!("{} (idmap)", bind.source.display())))?;
        trees.push(Some(tree));
    }
    Ok(trees)
}

/// The mount's own, or else the container's.
fn mappings<'a>(plan: &'a Plan, idmap: &'a IdMap) -> (&'a [IdMapping], &'a [IdMapping]) {
    if idmap.uids.is_empty() { (&plan.uid_mappings, &plan.gid_mappings) } else { (&idmap.uids, &idmap.gids) }
}

/// The user namespace that the container joins.
fn joined_namespace(plan: &Plan) -> Result<OwnedFd, SpawnError> {
    match plan.namespace(NamespaceKind::User) {
        Some(NamespaceSource::Path(path)) => {
            let path = path.to_string_lossy();
            open_path(&path).map_err(at(Stage::JoinNamespace, &path))
        }
        _ => Err(SpawnError::NotHere(
            "an idmapped mount needs mappings of its own or a user namespace".to_owned(),
        )),
    }
}

/// A user namespace with these mappings and nobody in it.
fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, SpawnError> {
    let failed = |errno| at(Stage::IdMapping, "of a mount")(errno);
    let proof = SoleThread::check().map_err(failed)?;
    let flags = Namespaces(u64::from(UnshareFlags::NEWUSER.bits()));
    match cata_sys::clone::clone(proof, flags, None).map_err(failed)? {
        Side::Child(_) => {
            // The namespace lives as long as somebody is in it or has it open.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            cata_sys::clone::sleep_forever()
        }
        Side::Parent(pid, pidfd) => {
            let number = pid.as_raw_nonzero().get();
            let result = write_maps(number, uids, gids).and_then(|()| {
                let path = format!("/proc/{number}/ns/user");
                open_path(&path).map_err(at(Stage::IdMapping, &path))
            });
            // It only slept.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let waited =
                rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
            waited.map_err(failed)?;
            result
        }
    }
}
