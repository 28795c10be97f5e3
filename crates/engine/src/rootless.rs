//! An engine whose root is that of a user namespace: what it is made of, and what it cannot do.

use std::fs;
use std::io;

use cata_runtime::plan::{Bind, MountKind, NamespaceKind, Plan};
use rustix::thread::UnshareFlags;

use crate::error::{Error, Result};
use crate::request::{CreateRequest, NamespaceMode, NetworkMode, Resources, UserNamespace};

/// Puts this process, which has one thread, into a user namespace.
///
/// # Errors
/// `EPERM` or `ENOSPC` where the host allows none.
pub fn unshare() -> io::Result<()> {
    Ok(cata_sys::namespace::unshare(UnshareFlags::NEWUSER)?)
}

/// Maps root inside to this user and group, and nobody else.
///
/// # Errors
/// The kernel's.
pub fn map_one(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))
}

/// First ids and sizes that a user may map besides his own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// From `/etc/subuid`.
    pub uids: Vec<(u32, u32)>,
    /// From `/etc/subgid`.
    pub gids: Vec<(u32, u32)>,
}

/// What the administrator gave this user. `None`: nothing.
#[must_use]
pub fn ranges(uid: u32) -> Option<Ranges> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let of = |file: &str| given(&fs::read_to_string(file).unwrap_or_default(), name.as_deref(), uid);
    let ranges = Ranges { uids: of("/etc/subuid"), gids: of("/etc/subgid") };
    (!ranges.uids.is_empty() && !ranges.gids.is_empty()).then_some(ranges)
}

/// `name:first:count`, or the same with the user's number.
fn given(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let whose = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(whose) == name || whose == number).then_some(range)
        })
        .collect()
}

/// As `newuidmap` takes them: the user's own id is root's, the others follow.
#[must_use]
pub fn words(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut next = 1;
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    for (first, count) in ranges {
        words.extend([next, *first, *count].map(|n| n.to_string()));
        next += count;
    }
    words
}

/// Fills in what a user without privileges has instead, and refuses what he cannot have.
pub(crate) fn adapt(request: &mut CreateRequest) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::Unsupported { what: format!("{what} without privileges"), hint: hint.to_owned() })
    };
    if request.isolation == cata_sandbox::launch::Isolation::Vm {
        return refuse("--isolation vm is not supported", "run it as root");
    }
    if matches!(&request.network, NetworkMode::Networks(endpoints) if endpoints.is_empty()) {
        request.network = NetworkMode::None;
    }
    if matches!(request.network, NetworkMode::Networks(_)) {
        return Err(no_bridges());
    }
    if request.network == NetworkMode::None && (!request.ports.is_empty() || request.publish_all) {
        return refuse(
            "ports cannot be published",
            "with --network host the container's ports are the host's",
        );
    }
    if request.pid == NamespaceMode::Host {
        return refuse(
            "--pid host is not possible",
            "there is no cgroup by which its processes could be ended",
        );
    }
    if request.resources != Resources::default() {
        return refuse("limits on resources are not possible", "they need a cgroup of the user's own");
    }
    if request.userns != UserNamespace::Host {
        return refuse(
            "--userns is not supported",
            "root in the container is this user already, and its other ids are those of /etc/subuid",
        );
    }
    Ok(())
}

/// Nor can networks be made.
pub(crate) fn no_bridges() -> Error {
    Error::Unsupported {
        what: "bridge networks are not possible without privileges".to_owned(),
        hint: "use --network host, or none (the default)".to_owned(),
    }
}

/// A step's overlay is mounted by the command itself, which has no mount namespace of its own.
pub(crate) fn no_builds() -> Error {
    Error::Unsupported {
        what: "building is not possible without privileges yet".to_owned(),
        hint: "build as root, and bring the image over: `cata save`, `cata load`; or change a container and \
               `cata commit` it"
            .to_owned(),
    }
}

/// Nothing tells what a container uses, or holds its processes together, but a cgroup.
pub(crate) fn no_cgroup(what: &str) -> Error {
    Error::Unsupported {
        what: format!("{what} is not possible without privileges"),
        hint: "it needs a cgroup of the container's own".to_owned(),
    }
}

/// Takes out of a plan what this user may not make.
pub(crate) fn without(plan: &mut Plan, request: &CreateRequest) {
    // No cgroup, and so nothing to show of one.
    plan.cgroup = None;
    plan.mounts.retain(|mount| mount.kind != MountKind::Cgroup);
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
    // Only who owns the network may mount its `/sys`: the host's is shown.
    if plan.makes(NamespaceKind::Network) {
        return;
    }
    for mount in &mut plan.mounts {
        if matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "sysfs") {
            mount.kind = MountKind::Bind(Bind { source: "/sys".into(), recursive: true, namespace: None });
            mount.close_sys();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_name_and_number_follow_the_own_id() {
        let text = "alice:700000:65536\nbob:1:2\n4242:900000:10\n# x\nalice:bad\n";
        let list = given(text, Some("alice"), 4242);
        assert_eq!(list, [(700_000, 65536), (900_000, 10)]);
        let expected = ["0", "4242", "1", "1", "700000", "65536", "65537", "900000", "10"];
        assert_eq!(words(4242, &list), expected);
        assert!(given(text, None, 5).is_empty());
    }
}
