//! From limits asked for to directories, files and values: pure.

use std::path::{Component, Path, PathBuf};

use cata_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::devices::{DevicePolicy, DeviceProgram};
use super::{CgroupError, Controller, Hierarchy, Layout, Unit, limits};

/// Everything needed to make a container's cgroup: lean data that names no type of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// One a hierarchy; the cgroup2 one first.
    pub directories: Vec<Directory>,
    /// In this order.
    pub writes: Vec<Write>,
    /// Version 2's device filter.
    pub devices: Option<DeviceProgram>,
    /// It is systemd's to make, around its first process: then nothing else is decided before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// A directory to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where its hierarchy is mounted.
    pub mount: PathBuf,
    /// Relative to `mount`.
    pub path: PathBuf,
    /// Whether the hierarchy is cgroup2.
    pub unified: bool,
    /// What is used of it. Version 2: enabled down the tree.
    pub controllers: Vec<Controller>,
    /// Those of `controllers` that a limit needs: the others may fail (version 2).
    pub needed: Vec<Controller>,
}

impl Directory {
    /// The directory as an absolute path.
    #[must_use]
    pub fn full(&self) -> PathBuf {
        self.mount.join(&self.path)
    }
}

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Index in [`CgroupPlan::directories`].
    pub directory: usize,
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// Another file and value if this file does not exist.
    pub otherwise: Option<(String, String)>,
    /// What a failure means.
    pub need: Need,
}

/// What it means when a value cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// An error; the text names the limit as the user knows it.
    Required(String),
    /// An error, unless the kernel has no such file (swap is not accounted, say): then a warning.
    IfPresent(String),
    /// Nothing.
    BestEffort,
}

/// Decides a container's cgroup. `path` is the OCI's `cgroupsPath`: absolute from the top of what is mounted,
/// relative from the caller's own cgroup, in version 2 from the one above it. Without `resources` nothing is limited, devices included; with them
/// only the devices that they list (and those every container may use) are allowed.
///
/// # Errors
/// [`CgroupError`] naming the limit or the controller.
pub fn plan(
    resources: Option<&LinuxResources>,
    path: &str,
    layout: &Layout,
) -> Result<CgroupPlan, CgroupError> {
    let path = check(path)?;
    let mut planner = Planner { layout, path, plan: CgroupPlan::default() };
    if layout.is_v2() {
        planner.base_v2();
    } else {
        planner.base_v1();
    }
    if planner.plan.directories.is_empty() {
        return Err(CgroupError::NotMounted);
    }
    let Some(resources) = resources else { return Ok(planner.plan) };
    if layout.is_v2() {
        limits::v2(resources, &mut planner)?;
    } else {
        limits::v1(resources, &mut planner)?;
    }
    planner.devices(resources)?;
    Ok(planner.plan)
}

/// A path that stays below where it begins.
fn check(path: &str) -> Result<&Path, CgroupError> {
    let wrong = |why| CgroupError::Path { path: path.to_owned(), why };
    let parsed = Path::new(path);
    if path.split(':').count() == 3 && !path.contains('/') {
        return Err(CgroupError::Systemd(path.to_owned()));
    }
    if path.contains(['\0', '\n']) {
        return Err(wrong("contains a forbidden character"));
    }
    if parsed.components().any(|part| part == Component::ParentDir) {
        return Err(wrong("must not contain `..`"));
    }
    if !parsed.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("names no cgroup below the top one"));
    }
    Ok(parsed)
}

/// A plan that grows as limits are added.
pub(super) struct Planner<'a> {
    layout: &'a Layout,
    path: &'a Path,
    plan: CgroupPlan,
}

impl Planner<'_> {
    /// Memory, counts of processes and bytes, so that OOM kills, peak and statistics are known.
    fn base_v2(&mut self) {
        if let Some(unified) = self.layout.unified() {
            let mut directory = self.directory(unified);
            let base = [Controller::Memory, Controller::Pids, Controller::Io];
            directory.controllers.retain(|controller| base.contains(controller));
            self.plan.directories.push(directory);
        }
    }

    /// See the module's documentation for what is chosen and why.
    fn base_v1(&mut self) {
        let modern = self.layout.kernel >= (5, 14);
        let unified = self.layout.unified().filter(|_| modern);
        if let Some(unified) = unified {
            let directory = Directory { controllers: Vec::new(), ..self.directory(unified) };
            self.plan.directories.push(directory);
        }
        let without: &[Controller] =
            if unified.is_some() { &[] } else { &[Controller::Freezer, Controller::Cpuacct] };
        for controller in [Controller::Memory, Controller::Blkio].iter().chain(without) {
            // What this machine does not offer, it does not count.
            let _ = self.legacy(*controller);
        }
    }

    fn directory(&self, hierarchy: &Hierarchy) -> Directory {
        let path = match self.path.strip_prefix("/") {
            Ok(absolute) => absolute.components().collect(),
            // In version 2 only a cgroup without processes of its own has children that can be limited, and the
            // caller is in this one.
            Err(_) if hierarchy.unified => {
                hierarchy.own.parent().unwrap_or(Path::new("")).join(self.path).components().collect()
            }
            Err(_) => hierarchy.own.join(self.path).components().collect(),
        };
        Directory {
            mount: hierarchy.mount.clone(),
            path,
            unified: hierarchy.unified,
            controllers: hierarchy.controllers.clone(),
            needed: Vec::new(),
        }
    }

    /// The directory of a version 1 controller, added when it is not there yet.
    fn legacy(&mut self, controller: Controller) -> Option<usize> {
        let hierarchy =
            self.layout.hierarchies.iter().find(|h| !h.unified && h.controllers.contains(&controller))?;
        let known = self.plan.directories.iter().position(|directory| directory.mount == hierarchy.mount);
        Some(known.unwrap_or_else(|| {
            let directory = self.directory(hierarchy);
            self.plan.directories.push(directory);
            self.plan.directories.len() - 1
        }))
    }

    /// The directory of a controller that `limit` needs.
    fn need(&mut self, controller: Controller, limit: &str) -> Result<usize, CgroupError> {
        let missing = || CgroupError::NoController { limit: limit.to_owned(), controller };
        if !self.layout.is_v2() {
            return self.legacy(controller).ok_or_else(missing);
        }
        let offered = self.layout.unified().is_some_and(|unified| unified.controllers.contains(&controller));
        let directory = self.plan.directories.first_mut().filter(|_| offered).ok_or_else(missing)?;
        for list in [&mut directory.controllers, &mut directory.needed] {
            if !list.contains(&controller) {
                list.push(controller);
            }
        }
        Ok(0)
    }

    /// Adds a value that the user asked for.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts as callers have them")]
    pub(super) fn limit(
        &mut self,
        controller: Controller,
        limit: &str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Result<&mut Write, CgroupError> {
        let directory = self.need(controller, limit)?;
        self.plan.writes.push(Write {
            directory,
            file: file.into(),
            value: value.to_string(),
            otherwise: None,
            need: Need::Required(limit.to_owned()),
        });
        let last = self.plan.writes.len() - 1;
        Ok(&mut self.plan.writes[last])
    }

    fn devices(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let policy = DevicePolicy::new(resources.devices().as_deref().unwrap_or_default())?;
        if policy.is_unrestricted() {
            return Ok(());
        }
        if self.layout.is_v2() {
            self.plan.devices = Some(policy.program());
            return Ok(());
        }
        for (file, line) in policy.lines() {
            self.limit(Controller::Devices, "device rules", file, line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
