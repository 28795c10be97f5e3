//! The planner: specification and host facts in, plan out.

use std::collections::HashMap;

use cata_spec::runtime as oci;

use super::mount::Propagation;
use super::namespace::{self, Namespace, NamespaceKind};
use super::{Plan, PlanError, Root, device, mount, process};
use crate::cgroup::{self, CgroupPlan, Layout};
use crate::user::UserSpec;

/// What the planner must know of the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its cgroup hierarchies; `None` where there are none.
    pub cgroups: Option<Layout>,
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn detect() -> Self {
        Self { cgroups: Layout::detect().ok() }
    }
}

/// What an engine adds to a specification.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// In place of the specification's `root.path`.
    pub root: Option<Root>,
    /// In place of the specification's numeric user: names, looked up inside the container.
    pub user: Option<UserSpec>,
    /// PID 1 is a reaper and the payload its child.
    pub init: bool,
    /// In place of one made from the specification's `cgroupsPath` and resources.
    pub cgroup: Option<CgroupPlan>,
}

/// Decides everything that can be decided before a process exists. Pure.
///
/// # Errors
/// [`PlanError`] for a document that is incomplete, contradicts itself, or asks for what is not offered.
pub fn plan(spec: &oci::Spec, host: &Host, options: &Options) -> Result<Plan, PlanError> {
    let linux = spec.linux().as_ref().ok_or(PlanError::Missing("linux"))?;
    refuse_unsupported(spec, linux)?;
    let namespaces = namespace::namespaces(linux.namespaces().as_deref().unwrap_or_default())?;
    let root = match (&options.root, spec.root()) {
        (Some(root), _) => root.clone(),
        (None, Some(root)) if root.path().is_absolute() => Root::Path(root.path().clone()),
        (None, Some(root)) => {
            return Err(PlanError::NotAbsolute { what: "root", path: root.path().clone() });
        }
        (None, None) => return Err(PlanError::Missing("root")),
    };
    let root_propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => Propagation::default(),
        Some(word) => Propagation::parse(word).ok_or(PlanError::Unsupported("that root propagation"))?,
    };
    let process = spec.process().as_ref().ok_or(PlanError::Missing("process"))?;
    let planned = Plan {
        uid_mappings: namespace::mappings(linux.uid_mappings().as_ref()),
        gid_mappings: namespace::mappings(linux.gid_mappings().as_ref()),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        root,
        readonly_root: spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
        root_propagation,
        mounts: spec.mounts().iter().flatten().map(mount::mount).collect::<Result<_, _>>()?,
        devices: device::devices(linux.devices().as_ref())?,
        links: device::links(),
        masked_paths: paths("masked", linux.masked_paths().as_ref())?,
        readonly_paths: paths("read-only", linux.readonly_paths().as_ref())?,
        sysctls: sysctls(linux.sysctl().as_ref(), &namespaces)?,
        cgroup: cgroup(linux, host, options)?,
        init: options.init,
        process: process::process(process, linux.seccomp().as_ref(), options.user.clone())?,
        namespaces,
    };
    consistent(&planned)?;
    Ok(planned)
}

fn cgroup(linux: &oci::Linux, host: &Host, options: &Options) -> Result<Option<CgroupPlan>, PlanError> {
    if options.cgroup.is_some() {
        return Ok(options.cgroup.clone());
    }
    let Some(path) = linux.cgroups_path().as_deref().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(None);
    };
    let layout = host.cgroups.as_ref().ok_or(PlanError::Missing("cgroup file system on this host"))?;
    cgroup::plan(linux.resources().as_ref(), &path.to_string_lossy(), layout)
        .map(Some)
        .map_err(PlanError::Cgroup)
}

/// Refuses by name what would otherwise be ignored.
fn refuse_unsupported(spec: &oci::Spec, linux: &oci::Linux) -> Result<(), PlanError> {
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci::Hooks::default());
    let refused = [
        (hooks, "running hooks"),
        (linux.intel_rdt().is_some(), "Intel RDT"),
        (linux.personality().is_some(), "a personality"),
        (linux.memory_policy().is_some(), "a memory policy"),
        (linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()), "moving network devices"),
        (linux.time_offsets().as_ref().is_some_and(|d| !d.is_empty()), "a time offset"),
        (linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()), "an SELinux mount label"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(PlanError::Unsupported(what)),
        None => Ok(()),
    }
}

fn consistent(plan: &Plan) -> Result<(), PlanError> {
    let own_uts = plan.namespace(NamespaceKind::Uts).is_some();
    if plan.hostname.is_some() && !own_uts {
        return Err(PlanError::NotOwnUts("host name"));
    }
    if plan.domainname.is_some() && !own_uts {
        return Err(PlanError::NotOwnUts("domain name"));
    }
    let mapped = !plan.uid_mappings.is_empty() && !plan.gid_mappings.is_empty();
    let any = !plan.uid_mappings.is_empty() || !plan.gid_mappings.is_empty();
    match (plan.makes(NamespaceKind::User), mapped, any) {
        (true, false, _) => Err(PlanError::Mapping("it needs uid and gid mappings")),
        (false, _, true) => Err(PlanError::Mapping("mappings are given without a new user namespace")),
        _ => Ok(()),
    }
}

fn paths(what: &'static str, list: Option<&Vec<String>>) -> Result<Vec<std::path::PathBuf>, PlanError> {
    let absolute = |text: &String| {
        let path = std::path::PathBuf::from(text);
        if path.is_absolute() { Ok(path) } else { Err(PlanError::NotAbsolute { what, path }) }
    };
    list.into_iter().flatten().map(absolute).collect()
}

/// Lets through only parameters that belong to one of the container's own namespaces: any other would be
/// the host's.
fn sysctls(
    spec: Option<&HashMap<String, String>>,
    namespaces: &[Namespace],
) -> Result<Vec<(String, String)>, PlanError> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let own = |kind| namespaces.iter().any(|n| n.kind == kind);
    let mut planned = Vec::new();
    for (name, value) in spec.into_iter().flatten() {
        let wrong = |reason| PlanError::Sysctl { name: name.clone(), reason };
        let dotted = if name.contains('/') { name.replace('/', ".") } else { name.clone() };
        let (needed, reason) = if dotted.starts_with("net.") {
            (NamespaceKind::Network, "needs a network namespace of its own")
        } else if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            (NamespaceKind::Ipc, "needs an IPC namespace of its own")
        } else if dotted == "kernel.domainname" {
            (NamespaceKind::Uts, "needs a UTS namespace of its own")
        } else if dotted == "kernel.hostname" {
            return Err(wrong("set the host name instead"));
        } else {
            return Err(wrong("is not separate for each container"));
        };
        if !own(needed) {
            return Err(wrong(reason));
        }
        // As `sysctl` does, a name with slashes keeps its dots (interfaces as `eth0.1`).
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(wrong("is not a name of a parameter"));
        }
        planned.push((path, value.clone()));
    }
    planned.sort();
    Ok(planned)
}
