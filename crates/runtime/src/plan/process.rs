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
    /// Program and arguments; the program is looked up in the `PATH` of `env`.
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

/// Plans the process part of a specification.
pub(super) fn process(
    spec: &oci::Process,
    filter: Option<&oci::LinuxSeccomp>,
    user: Option<UserSpec>,
) -> Result<Process, PlanError> {
    refuse_unsupported(spec)?;
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
        seccomp: filter
            .map(|profile| seccomp::compile(profile).map(|compiled| compiled.program))
            .transpose()
            .map_err(PlanError::Seccomp)?,
        oom_score_adj: spec.oom_score_adj(),
    })
}

fn refuse_unsupported(spec: &oci::Process) -> Result<(), PlanError> {
    let named = |name: &Option<String>| name.as_deref().is_some_and(|n| !n.is_empty() && n != "unconfined");
    let refused = [
        (named(spec.apparmor_profile()), "an AppArmor profile"),
        (named(spec.selinux_label()), "an SELinux label"),
        (spec.scheduler().is_some(), "a scheduling policy"),
        (spec.io_priority().is_some(), "an I/O priority"),
        (spec.exec_cpu_affinity().is_some(), "an affinity for exec"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(PlanError::Unsupported(what)),
        None => Ok(()),
    }
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
