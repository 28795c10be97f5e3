//! The planner: specification and host facts in, plan out.

use std::collections::HashMap;

use cata_spec::runtime as oci;

use super::mount::Propagation;
use super::namespace::{self, Namespace, NamespaceKind};
use super::{IdMap, Plan, PlanError, Root, device, mount, process, schedule};
use crate::cgroup::{self, CgroupPlan, Layout};
use crate::hook::{Hook, Hooks};
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
    /// Mappings of single mounts, in the order of the specification's mounts; missing at the end: none.
    pub mount_mappings: Vec<Option<IdMap>>,
    /// A filter that was compiled before, in place of the specification's profile.
    pub filter: Option<crate::seccomp::Program>,
    /// The caller puts the process into its class of service; otherwise a specification with one is refused.
    pub rdt: bool,
    /// The caller runs the hooks that are its part; otherwise a specification with hooks is refused.
    pub hooks: bool,
    /// A specification without a process is one of a container that can be created and never started.
    pub idle: bool,
}

/// Decides everything that can be decided before a process exists. Pure.
///
/// # Errors
/// [`PlanError`] for a document that is incomplete, contradicts itself, or asks for what is not offered.
pub fn plan(spec: &oci::Spec, host: &Host, options: &Options) -> Result<Plan, PlanError> {
    let linux = spec.linux().as_ref().ok_or(PlanError::Missing("linux"))?;
    refuse_unsupported(spec, linux, options)?;
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
    let process = match spec.process() {
        Some(process) => process::process_with(
            process,
            linux.seccomp().as_ref(),
            options.filter.clone(),
            options.user.clone(),
        )?,
        None if options.idle => process::idle(),
        None => return Err(PlanError::Missing("process")),
    };
    let planned = Plan {
        uid_mappings: namespace::mappings(linux.uid_mappings().as_ref()),
        gid_mappings: namespace::mappings(linux.gid_mappings().as_ref()),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        root,
        readonly_root: spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
        root_propagation,
        mounts: mounts(spec, options)?,
        mount_label: linux.mount_label().clone().filter(|label| !label.is_empty()),
        devices: device::devices(linux.devices().as_ref())?,
        net_devices: namespace::net_devices(linux.net_devices().as_ref(), &namespaces)?,
        links: device::links(),
        masked_paths: paths("masked", linux.masked_paths().as_ref())?,
        readonly_paths: paths("read-only", linux.readonly_paths().as_ref())?,
        sysctls: sysctls(linux.sysctl().as_ref(), &namespaces)?,
        cgroup: cgroup(linux, host, options)?,
        init: options.init,
        hooks: hooks(spec)?,
        time_offsets: schedule::time_offsets(linux)?,
        personality: linux.personality().as_ref().map(schedule::personality).transpose()?,
        memory_policy: linux.memory_policy().as_ref().map(schedule::memory_policy).transpose()?,
        process,
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
fn refuse_unsupported(spec: &oci::Spec, linux: &oci::Linux, options: &Options) -> Result<(), PlanError> {
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci::Hooks::default());
    let refused = [
        (hooks && !options.hooks, "running hooks"),
        (linux.intel_rdt().is_some() && !options.rdt, "Intel RDT"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(PlanError::Unsupported(what)),
        None => Ok(()),
    }
}

fn mounts(spec: &oci::Spec, options: &Options) -> Result<Vec<super::Mount>, PlanError> {
    let list = spec.mounts().as_ref().map(Vec::as_slice).unwrap_or_default();
    let mapping = |at: usize| options.mount_mappings.get(at).cloned().flatten();
    list.iter().enumerate().map(|(at, one)| mount::mount(one, mapping(at))).collect()
}

fn hooks(spec: &oci::Spec) -> Result<Hooks, PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(Hooks::default()) };
    let some = |list: &Option<Vec<oci::Hook>>| list.as_ref().is_some_and(|list| !list.is_empty());
    #[allow(deprecated, reason = "engines still use it")]
    let prestart = some(hooks.prestart());
    Ok(Hooks {
        runtime: prestart || some(hooks.create_runtime()),
        create_container: hook_list(hooks.create_container())?,
        start_container: with_environment(spec, hook_list(hooks.start_container())?, hooks.start_container()),
    })
}

/// Hooks that run in the container: one that names no environment has that of the container's process, as other
/// runtimes have it. An empty one is empty.
fn with_environment(spec: &oci::Spec, mut hooks: Vec<Hook>, named: &Option<Vec<oci::Hook>>) -> Vec<Hook> {
    let process = || spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
    for (hook, named) in hooks.iter_mut().zip(named.iter().flatten()) {
        if named.env().is_none() {
            hook.env = process();
        }
    }
    hooks
}

/// Hooks as they are run.
///
/// # Errors
/// [`PlanError::Hook`] for a path that is not absolute, or a timeout that is none.
pub fn hook_list(list: &Option<Vec<oci::Hook>>) -> Result<Vec<Hook>, PlanError> {
    let one = |hook: &oci::Hook| {
        let wrong = |reason| PlanError::Hook { path: hook.path().clone(), reason };
        if !hook.path().is_absolute() {
            return Err(wrong("its path is not absolute"));
        }
        let timeout = hook.timeout().map(|seconds| match u32::try_from(seconds) {
            Ok(seconds @ 1..) => Ok(seconds),
            _ => Err(wrong("its timeout is not greater than zero")),
        });
        Ok(Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone().unwrap_or_default(),
            timeout: timeout.transpose()?,
        })
    };
    list.iter().flatten().map(one).collect()
}

fn consistent(plan: &Plan) -> Result<(), PlanError> {
    if !plan.time_offsets.is_empty() && !plan.makes(NamespaceKind::Time) {
        return Err(PlanError::Missing("linux.namespaces of type time, which linux.timeOffsets needs"));
    }
    let bad = plan.mounts.iter().find(|mount| mount.idmap.as_ref().is_some_and(|m| m.uids.is_empty()));
    if bad.is_some() && plan.namespace(NamespaceKind::User).is_none() {
        return Err(PlanError::Mapping("an idmapped mount has no mappings and there is no user namespace"));
    }
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
