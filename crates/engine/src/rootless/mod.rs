//! An engine whose root is that of a user namespace: what it is made of, and what it cannot do.
//!
//! [`cgroups`] are those that somebody gave the user, [`ids`] are those of the user's namespace, [`namespaces`] finds or makes it and goes into it, [`outside`] is the
//! way out of its network.

pub(crate) mod cgroups;
mod ids;
pub mod namespaces;
pub(crate) mod outside;

use std::fs;

use cata_runtime::plan::{Bind, IdMapping, Mount, MountKind, NamespaceKind, Plan, Rlimit};

pub use namespaces::enter;

use crate::error::{Error, Result};
use crate::plan::users::{self, Own};
use crate::request::{CreateRequest, Resources, UserNamespace, Users};

/// Fills in what a user without privileges has instead, and refuses what he cannot have.
pub(crate) fn adapt(request: &mut CreateRequest) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::Unsupported { what: format!("{what} without privileges"), hint: hint.to_owned() })
    };
    if request.isolation == cata_sandbox::launch::Isolation::Vm {
        return refuse("--isolation vm is not supported", "run it as root");
    }
    if cgroups::home().is_none() && request.resources != Resources::default() {
        return refuse("limits on resources are not possible", OWN_CGROUP);
    }
    match &mut request.userns {
        UserNamespace::Host => {}
        UserNamespace::Auto { .. } => {
            users::map("--userns auto", &Users::without(own()?).uids).map_err(|_| nobody_else())?;
        }
        UserNamespace::KeepId { uid, gid } => {
            let own = own()?;
            users::map("--userns keep-id", &Users::keeping(own, (*uid, *gid)).uids)
                .map_err(|_| nobody_else())?;
            // Whom they are kept for.
            let ids = || format!("{}:{}", uid.unwrap_or(own.uid), gid.unwrap_or(own.gid));
            request.user = request.user.take().or_else(|| Some(ids()));
        }
        UserNamespace::NoMap => {
            users::map("--userns nomap", &Users::without(own()?).uids).map_err(|_| nobody_else())?;
        }
        UserNamespace::Map(users) => {
            let own = own()?;
            within(&users.uids, own.uids)?;
            within(&users.gids, own.gids)?;
            users.on_disk = true;
        }
    }
    Ok(())
}

/// Ids that a user maps are counted from his own, which is 0; `last` is the last of them.
fn within(ranges: &[IdMapping], last: u32) -> Result<()> {
    let beyond = |range: &&IdMapping| u64::from(range.host) + u64::from(range.size) > u64::from(last) + 1;
    match ranges.iter().find(beyond) {
        Some(IdMapping { container, host, size }) => Err(Error::Invalid(format!(
            "range {container}:{host}:{size} goes beyond the ids that are yours: 0, which you are, to {last}"
        ))),
        None => Ok(()),
    }
}

fn nobody_else() -> Error {
    Error::Unsupported {
        what: "a user namespace of the container's own needs other ids than yours".to_owned(),
        hint: "they are given by /etc/subuid and /etc/subgid (usermod --add-subuids, --add-subgids)"
            .to_owned(),
    }
}

/// Who this user is, and which ids are his.
pub(crate) fn own() -> Result<Own> {
    let read = |path: &str| {
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        ids::own(&text).ok_or_else(nobody_else)
    };
    let ((uid, uids), (gid, gids)) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    Ok(Own { uid, gid, uids, gids })
}

/// The name and the home of a user of the host, or the name of a group.
pub(crate) fn account(file: &str, id: u32) -> Option<(String, String)> {
    ids::account(&fs::read_to_string(file).unwrap_or_default(), id)
}

/// Where a user gets one.
const OWN_CGROUP: &str =
    "where systemd runs with cgroup v2, start the container by `systemd-run --user --scope cata …`";

/// Nothing tells what a container uses, or holds its processes together, but a cgroup.
pub(crate) fn no_cgroup(what: &str) -> Error {
    Error::Unsupported {
        what: format!("{what} is not possible without privileges"),
        hint: format!("it needs a cgroup of the container's own: {OWN_CGROUP}"),
    }
}

/// Takes out of a plan what this user may not make.
pub(crate) fn without(plan: &mut Plan, request: &CreateRequest) -> Result<()> {
    // Programs in the kernel are root's; there are no devices to be kept from either.
    if let Some(cgroup) = &mut plan.cgroup {
        cgroup.devices = None;
    }
    if cgroups::home().is_none() {
        // It may have been created elsewhere.
        if request.resources != Resources::default() {
            return Err(no_cgroup("a start with limits on resources"));
        }
        // No cgroup, and so nothing to show of one.
        plan.cgroup = None;
        plan.mounts.retain(|mount| mount.kind != MountKind::Cgroup);
    }
    keep_descriptors(plan);
    // All groups of the host, which are not all there; it is a default, unless it was asked for.
    let ping = "net.ipv4.ping_group_range";
    if !request.sysctls.contains_key(ping) {
        plan.sysctls.retain(|(name, _)| name.replace('/', ".") != ping);
    }
    // The group of terminals may be nobody here.
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let alone = map.lines().count() == 1;
    for mount in plan.mounts.iter_mut().filter(|_| alone) {
        if let MountKind::Filesystem { fstype, options, .. } = &mut mount.kind
            && fstype == "devpts"
        {
            options.retain(|(key, _)| key != "gid");
        }
    }
    // Only who owns the processes may mount their `/proc`, and the network its `/sys`: the host's is shown.
    if plan.namespace(NamespaceKind::Pid).is_none() {
        show(plan, "proc", "/proc");
    }
    if !plan.makes(NamespaceKind::Network) {
        show(plan, "sysfs", "/sys").into_iter().for_each(Mount::close_sys);
    }
    Ok(())
}

/// A file system of the kernel's as it is mounted here, in place of one of the container's own.
fn show<'a>(plan: &'a mut Plan, kind: &str, at: &str) -> Vec<&'a mut Mount> {
    let is_it =
        |mount: &&mut Mount| matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == kind);
    let mut shown: Vec<&mut Mount> = plan.mounts.iter_mut().filter(is_it).collect();
    for mount in &mut shown {
        mount.kind =
            MountKind::Bind(Bind { source: at.into(), recursive: true, namespace: None, beneath: None });
    }
    shown
}

/// A supervisor that carries ports has more descriptors than its container is to have.
fn keep_descriptors(plan: &mut Plan) {
    let list = &mut plan.process.rlimits;
    let name = "RLIMIT_NOFILE";
    if list.iter().all(|limit| limit.name != name) {
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        list.push(Rlimit { name: name.to_owned(), soft: number(own.current), hard: number(own.maximum) });
    }
}
