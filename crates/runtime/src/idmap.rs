//! Trees of the host that only the caller may copy: those whose files get other ids, and, for a new user
//! namespace, those that its root could not even reach. The new process inherits them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_sys::clone::{Namespaces, Side, SoleThread};
use cata_sys::mount::{Depth, attribute};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

use crate::error::{SpawnError, Stage, at};
use crate::handshake::{Channel, Failure, Message};
use crate::plan::{IdMap, IdMapping, MountKind, NamespaceKind, Plan, Root};
use crate::{rootfs, userns};

/// Detached copies.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    pub(crate) root: Option<OwnedFd>,
    /// One place for each mount of the plan.
    pub(crate) mounts: Vec<Option<OwnedFd>>,
}

/// What this plan needs of them. `joined`: the user namespace of the container, if it exists already.
pub(crate) fn trees(plan: &Plan, joined: Option<BorrowedFd<'_>>) -> Result<Trees, SpawnError> {
    let unreachable = plan.namespace(NamespaceKind::User).is_some();
    let root = match &plan.root {
        Root::Path(path) if unreachable => match cata_sys::mount::clone_path(path, Depth::Recursive) {
            // What this caller may not copy it may not hide either: the new process reaches what it does.
            Err(Errno::PERM) => None,
            tree => Some(tree.map_err(at(Stage::Root, path.display()))?),
        },
        Root::Overlay { as_on_disk: true, .. } if unreachable => Some(overlay(plan, None)?),
        Root::Overlay { .. } if unreachable => Some(match joined {
            Some(users) => overlay(plan, Some(users))?,
            None => {
                let users = userns::make(&plan.uid_mappings, &plan.gid_mappings, false)?.user;
                overlay(plan, Some(users.as_fd()))?
            }
        }),
        _ => None,
    };
    let mounts = if unreachable || plan.mounts.iter().any(|mount| mount.idmap.is_some()) {
        sources(plan, unreachable, joined)?
    } else {
        Vec::new()
    };
    Ok(Trees { root, mounts })
}

fn sources(
    plan: &Plan,
    all: bool,
    joined: Option<BorrowedFd<'_>>,
) -> Result<Vec<Option<OwnedFd>>, SpawnError> {
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
        let tree = match bind.tree() {
            // As for the root.
            Err(Errno::PERM) if mount.idmap.is_none() => {
                trees.push(None);
                continue;
            }
            tree => tree.map_err(failed)?,
        };
        let Some(idmap) = &mount.idmap else {
            trees.push(Some(tree));
            continue;
        };
        let depth = if idmap.recursive { Depth::Recursive } else { Depth::This };
        let change = |users: BorrowedFd<'_>| map(tree.as_fd(), depth, users, &bind.source);
        match (idmap.uids.is_empty(), joined) {
            (true, Some(users)) => change(users)?,
            (true, None) if plan.uid_mappings.is_empty() => {
                return Err(SpawnError::NotHere(
                    "an idmapped mount needs mappings of its own or a user namespace".to_owned(),
                ));
            }
            _ => {
                let (uids, gids) = mappings(plan, idmap);
                let at = match known.iter().position(|(u, g, _)| (*u, *g) == (uids, gids)) {
                    Some(at) => at,
                    None => {
                        known.push((uids, gids, userns::make(uids, gids, false)?.user));
                        known.len() - 1
                    }
                };
                change(known[at].2.as_fd())?;
            }
        }
        trees.push(Some(tree));
    }
    Ok(trees)
}

/// The mount's own, or else the container's.
fn mappings<'a>(plan: &'a Plan, idmap: &'a IdMap) -> (&'a [IdMapping], &'a [IdMapping]) {
    if idmap.uids.is_empty() { (&plan.uid_mappings, &plan.gid_mappings) } else { (&idmap.uids, &idmap.gids) }
}

/// Files of a detached tree get other owners: those that this user namespace gives them.
fn map(tree: BorrowedFd<'_>, depth: Depth, users: BorrowedFd<'_>, whose: &Path) -> Result<(), SpawnError> {
    cata_sys::mount::set_idmap(tree, depth, users).map_err(at(Stage::Owners, whose.display()))
}

/// An overlay of the caller's own user namespace; with `users`, of directories whose files belong to the ids of that one.
///
/// The owners on disk stay those of the image: nothing is ever changed for a mapping, and what a container writes
/// can be used without it. The overlay itself must be the host's: one that belongs to a user namespace keeps its
/// notes about removed files in other attributes. Until Linux 6.15 its directories must be somewhere in the mount
/// namespace of who makes it. So somebody makes it in one of his own, in which each directory covers itself.
fn overlay(plan: &Plan, users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, SpawnError> {
    let failed = |errno| at(Stage::Root, "overlay")(errno);
    let root_of = |map: &[IdMapping]| map.iter().find(|m| m.container == 0).map(|m| m.host);
    let Some((uid, gid)) = root_of(&plan.uid_mappings).zip(root_of(&plan.gid_mappings)) else {
        return Err(SpawnError::NotHere("an overlay needs id 0 of its user namespace".to_owned()));
    };
    let proof = SoleThread::check().map_err(failed)?;
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let flags = Namespaces(u64::from(UnshareFlags::NEWNS.bits()));
    match cata_sys::clone::clone(proof, flags, None).map_err(failed)? {
        Side::Child(_) => {
            // Who makes an overlay writes to its upper directory now and then for as long as it exists. To the
            // mount of that directory only ids of the container mean something.
            let made = match users {
                Some(users) => cata_sys::capability::act_as(uid, gid)
                    .map_err(Failure::at(Stage::Owners, "overlay"))
                    .and_then(|()| alone())
                    .and_then(|()| cover(&plan.root, users)),
                None => alone().and_then(|()| rootfs::tree(&plan.root)),
            };
            let message = match made {
                Ok(tree) => theirs.send(&Message::Tree, Some(tree.as_fd())),
                Err(failure) => theirs.send(&Message::Failed(failure), None),
            };
            cata_sys::clone::exit(i32::from(message.is_err()))
        }
        Side::Parent(pid, _) => {
            drop(theirs);
            let answer = ours.receive();
            let waited =
                rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
            waited.map_err(failed)?;
            match answer.map_err(failed)? {
                Some((Message::Tree, Some(tree))) => Ok(tree),
                Some((Message::Failed(failure), _)) => Err(failure.into()),
                _ => Err(failed(Errno::PIPE)),
            }
        }
    }
}

/// The new mount namespace.
fn alone() -> Result<(), Failure> {
    cata_sys::mount::set_propagation(Path::new("/"), attribute::PRIVATE, Depth::Recursive)
        .map_err(Failure::at(Stage::Root, "/"))
}

fn cover(root: &Root, users: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let Root::Overlay { lower, upper, work, .. } = root else {
        return Err(Failure::at(Stage::Root, "overlay")(Errno::INVAL));
    };
    let mut places: Vec<&Path> = lower.iter().map(std::path::PathBuf::as_path).collect();
    if let (Some(upper), Some(work)) = (upper, work) {
        // Both must be on one mount.
        match (upper.parent(), work.parent()) {
            (Some(above), Some(same)) if above == same => places.push(above),
            _ => return Err(Failure::at(Stage::Root, work.display())(Errno::XDEV)),
        }
    }
    for place in places {
        let failed = || Failure::at(Stage::Root, place.display());
        let tree = cata_sys::mount::clone_path(place, Depth::This).map_err(failed())?;
        cata_sys::mount::set_idmap(tree.as_fd(), Depth::This, users)
            .map_err(Failure::at(Stage::Owners, place.display()))?;
        let target =
            rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed())?;
        cata_sys::mount::attach(tree.as_fd(), target.as_fd()).map_err(failed())?;
    }
    rootfs::tree(root)
}
