//! The process itself: what is run, as whom, and with which rights.

use std::path::PathBuf;

use cata_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use crate::seccomp::{self, Program};
use crate::user::UserSpec;

/// What is run, as whom, and with which rights. Shared by a container's first process and by `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the program is looked up in the `PATH` of `env`. None: it waits, and is never let go.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory inside; made when missing.
    pub cwd: PathBuf,
    /// Resolved inside the container's root.
    pub user: UserSpec,
    /// File creation mask.
    pub umask: Option<u32>,
    /// A terminal of its own, taken from the container's devpts.
    pub terminal: bool,
    /// The terminal's first size.
    pub window: Option<WindowSize>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Absent: whatever the caller has.
    pub capabilities: Option<Capabilities>,
    /// Never gain rights by exec.
    pub no_new_privileges: bool,
    /// System call filter; absent: none.
    pub seccomp: Option<Program>,
    /// Written to `/proc/<pid>/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Who is told of calls that the filter hands on.
    #[serde(default)]
    pub seccomp_listener: Option<Listener>,
    /// How it is scheduled.
    #[serde(default)]
    pub scheduler: Option<super::Scheduler>,
    /// How its I/O is.
    #[serde(default)]
    pub io_priority: Option<super::IoPriority>,
    /// CPUs it may run on from its birth, and once it is in its cgroup. Of further processes only.
    #[serde(default)]
    pub affinity: Option<(Vec<usize>, Vec<usize>)>,
    /// AppArmor profile to enter.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// SELinux label to get.
    #[serde(default)]
    pub selinux: Option<String>,
}

/// Who is told of calls that a filter hands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// A unix socket of the host.
    pub path: PathBuf,
    /// Handed on to it.
    pub metadata: Option<String>,
}

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    /// `u64::MAX`: no limit.
    pub soft: u64,
    /// `u64::MAX`: no limit.
    pub hard: u64,
}

/// Five sets, bit n standing for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Capabilities {
    /// Every capability that Linux has, as `--privileged` gives them. What the host lacks is withheld at spawn.
    pub const ALL: Self = {
        let all = cata_sys::capability::KNOWN;
        Self { bounding: all, effective: all, permitted: all, inheritable: 0, ambient: 0 }
    };
}

/// Plans a process part alone, of one more process for example. `program` in place of the compiled profile.
///
/// # Errors
/// [`PlanError`].
pub fn process(
    spec: &oci::Process,
    filter: Option<&oci::LinuxSeccomp>,
    program: Option<Program>,
) -> Result<Process, PlanError> {
    let mut planned = process_with(spec, filter, program, None)?;
    planned.affinity = spec.exec_cpu_affinity().as_ref().map(affinity).transpose()?;
    Ok(planned)
}

fn affinity(spec: &oci::ExecCPUAffinity) -> Result<(Vec<usize>, Vec<usize>), PlanError> {
    let list = |text: &Option<String>| super::schedule::list(text.as_deref().unwrap_or_default());
    Ok((list(spec.initial())?, list(spec.cpu_affinity_final())?))
}

fn listener(filter: Option<&oci::LinuxSeccomp>) -> Option<Listener> {
    let path = filter?.listener_path().clone().filter(|path| !path.as_os_str().is_empty())?;
    Some(Listener { path, metadata: filter?.listener_metadata().clone() })
}

/// Of a container that nothing is to run in: its process waits, without rights, until it is killed.
pub(super) fn idle() -> Process {
    Process {
        argv: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        user: UserSpec::Ids { uid: 0, gid: 0, groups: Vec::new() },
        umask: None,
        terminal: false,
        window: None,
        rlimits: Vec::new(),
        capabilities: Some(Capabilities::default()),
        no_new_privileges: true,
        seccomp: None,
        oom_score_adj: None,
        seccomp_listener: None,
        scheduler: None,
        io_priority: None,
        affinity: None,
        apparmor: None,
        selinux: None,
    }
}

/// Plans the process part of a specification.
pub(super) fn process_with(
    spec: &oci::Process,
    filter: Option<&oci::LinuxSeccomp>,
    program: Option<Program>,
    user: Option<UserSpec>,
) -> Result<Process, PlanError> {
    let argv = spec.args().clone().unwrap_or_default();
    if argv.is_empty() {
        return Err(PlanError::Missing("process.args"));
    }
    let env = spec.env().clone().unwrap_or_default();
    if argv.iter().any(|arg| arg.contains('\0')) {
        return Err(PlanError::Nul("an argument"));
    }
    if env.iter().any(|variable| variable.contains('\0')) {
        return Err(PlanError::Nul("an environment variable"));
    }
    let cwd = if spec.cwd().as_os_str().is_empty() { PathBuf::from("/") } else { spec.cwd().clone() };
    if !cwd.is_absolute() {
        return Err(PlanError::NotAbsolute { what: "working directory", path: cwd });
    }
    let ids = || UserSpec::Ids {
        uid: spec.user().uid(),
        gid: spec.user().gid(),
        groups: spec.user().additional_gids().clone().unwrap_or_default(),
    };
    let side = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let seccomp = match (program, filter) {
        (Some(program), _) => Some(program),
        (None, Some(profile)) => Some(seccomp::compile(profile).map_err(PlanError::Seccomp)?.program),
        (None, None) => None,
    };
    let seccomp_listener = listener(filter);
    if seccomp.as_ref().is_some_and(Program::notifies) && seccomp_listener.is_none() {
        return Err(PlanError::Missing("linux.seccomp.listenerPath, which SCMP_ACT_NOTIFY needs"));
    }
    let named = |name: &Option<String>| name.clone().filter(|n| !n.is_empty() && n != "unconfined");
    Ok(Process {
        argv,
        env,
        cwd,
        user: user.unwrap_or_else(ids),
        umask: spec.user().umask(),
        terminal: spec.terminal().unwrap_or(false),
        window: spec
            .console_size()
            .as_ref()
            .map(|size| WindowSize { rows: side(size.height()), columns: side(size.width()) }),
        rlimits: spec.rlimits().as_ref().map(|list| list.iter().map(rlimit).collect()).unwrap_or_default(),
        capabilities: spec.capabilities().as_ref().map(capabilities),
        no_new_privileges: spec.no_new_privileges().unwrap_or(false),
        seccomp,
        oom_score_adj: spec.oom_score_adj(),
        seccomp_listener,
        scheduler: spec.scheduler().as_ref().map(super::schedule::scheduler).transpose()?,
        io_priority: spec.io_priority().as_ref().map(super::schedule::io_priority).transpose()?,
        affinity: None,
        apparmor: named(spec.apparmor_profile()),
        selinux: named(spec.selinux_label()),
    })
}

fn rlimit(limit: &oci::PosixRlimit) -> Rlimit {
    Rlimit { name: limit.typ().to_string(), soft: limit.soft(), hard: limit.hard() }
}

fn capabilities(spec: &oci::LinuxCapabilities) -> Capabilities {
    let bits = |set: &Option<oci::Capabilities>| {
        let bit = |c: &oci::Capability| cata_sys::capability::bit(&c.to_string());
        set.iter().flatten().filter_map(bit).fold(0, |bits, bit| bits | bit)
    };
    Capabilities {
        bounding: bits(spec.bounding()),
        effective: bits(spec.effective()),
        permitted: bits(spec.permitted()),
        inheritable: bits(spec.inheritable()),
        ambient: bits(spec.ambient()),
    }
}
