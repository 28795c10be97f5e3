//! The specification: read, made readable where its words are newer than its reader's, and planned.

use std::fs;
use std::path::{Path, PathBuf};

use cata_runtime::cgroup::{CgroupPlan, Manager, Unit, Wish};
use cata_runtime::plan::{Host, IdMap, IdMapping, Options, Plan};
use cata_runtime::rdt::{RdtPlan, RdtRequest};
use cata_runtime::seccomp::Program;
use cata_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::{filter, rights};

/// A bundle's specification.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// As it was read.
    pub(crate) text: Vec<u8>,
    pub(crate) spec: Spec,
    /// What of it has no effect, in words.
    pub(crate) ignored: Vec<String>,
    /// A call that a filter hands on is interrupted by fatal signals only; the types do not know this flag.
    wait_killable: bool,
}

const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// What the types of the specification leave out.
#[derive(Debug, Default, Deserialize)]
struct Further {
    #[serde(default)]
    mounts: Option<Vec<FurtherMount>>,
    #[serde(default)]
    linux: Option<FurtherLinux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FurtherLinux {
    #[serde(default)]
    intel_rdt: Option<RdtRequest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FurtherMount {
    #[serde(default)]
    uid_mappings: Option<Vec<Mapping>>,
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

impl Bundle {
    /// Reads `config.json` of a bundle.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(Error::io("open bundle", path))?;
        let config = path.join("config.json");
        let text = match fs::read(&config) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(format!("JSON specification file {} not found", config.display())));
            }
            result => result.map_err(Error::io("read", &config))?,
        };
        Self::of(path, text, &config)
    }

    /// The specification that a container was made from.
    pub(crate) fn of(path: PathBuf, text: Vec<u8>, name: &Path) -> Result<Self> {
        let mut ignored = Vec::new();
        let spec: Spec =
            parse(&text, &mut ignored).map_err(|error| Error::new(format!("{}: {error}", name.display())))?;
        check_version(spec.version())?;
        let wait_killable =
            text.windows(WAIT_KILLABLE.len()).any(|window| window == WAIT_KILLABLE.as_bytes());
        let mut bundle = Self { path, text, spec, ignored, wait_killable };
        bundle.bind_mounts();
        Ok(bundle)
    }

    /// The root's path, absolute.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let root = self.spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        self.path.join(root)
    }

    /// Decides everything that can be decided before a process exists.
    pub(crate) fn plan(&self, id: &str, cache: &Path, manager: Option<Manager>) -> Result<Plan> {
        let host = Host::detect();
        let mut spec = self.spec.clone();
        if let Some(root) = spec.root_mut() {
            let rootfs = self.path.join(root.path());
            root.set_path(rootfs);
        }
        let unit = manager.map(|manager| self.unit(id, manager, &host)).transpose()?;
        if unit.is_none() {
            self.default_cgroup(&mut spec, id);
        }
        if host.cgroups.is_none()
            && !rights::are_full()
            && let Some(linux) = spec.linux_mut()
        {
            // Nothing to put it in, and nothing that this user could mount.
            linux.set_cgroups_path(None);
        }
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = profile.map(|profile| self.compiled(profile, cache)).transpose()?;
        let cgroup = unit.map(|unit| CgroupPlan { unit: Some(unit), ..CgroupPlan::default() });
        let options = Options {
            rdt: true,
            hooks: true,
            idle: true,
            filter,
            cgroup,
            mount_mappings: self.mappings()?,
            ..Options::default()
        };
        cata_runtime::plan::plan(&spec, &host, &options)
            .map_err(|e| Error::chain("invalid specification", &e))
    }

    /// The scope that systemd is asked for.
    fn unit(&self, id: &str, manager: Manager, host: &Host) -> Result<Unit> {
        let layout =
            host.cgroups.as_ref().ok_or_else(|| Error::new("--systemd-cgroup: there are no cgroups"))?;
        let linux = self.spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
        let path = path.unwrap_or_default();
        let wish = Wish { path: &path, id, prefix: "cata", annotations: self.spec.annotations().as_ref() };
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        Unit::plan(wish, resources, manager, layout).map_err(|e| Error::chain("systemd cgroup", &e))
    }

    /// Without a path the runtime decides: a cgroup of the container's name below its own.
    fn default_cgroup(&self, spec: &mut Spec, id: &str) {
        // What shows cgroups to the container shows it its own.
        let shown = spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("cgroup"));
        let Some(linux) = spec.linux_mut() else { return };
        let given = linux.cgroups_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        if !given && (linux.resources().is_some() || shown) {
            linux.set_cgroups_path(Some(PathBuf::from(id)));
        }
    }

    /// Whether it asks for limits that only a cgroup has.
    pub(crate) fn is_limited(&self) -> bool {
        let resources = self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let Some(Ok(Value::Object(resources))) = resources.map(serde_json::to_value) else { return false };
        let is_empty = |value: &Value| match value {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            value => value.is_null(),
        };
        resources.iter().any(|(name, value)| name != "devices" && !is_empty(value))
    }

    /// Sources of bind mounts are relative to the bundle. Options of file systems mean nothing to them: that is
    /// told, as everybody else lets it pass.
    fn bind_mounts(&mut self) {
        let known = cata_runtime::plan::mount_options();
        for mount in self.spec.mounts_mut().iter_mut().flatten() {
            let words = mount.options().as_ref().map(Vec::as_slice).unwrap_or_default();
            let bind = mount.typ().as_deref() == Some("bind")
                || words.iter().any(|word| word == "bind" || word == "rbind");
            if bind {
                let (kept, void) =
                    words.iter().cloned().partition(|word| known.contains(word) || word.is_empty());
                let void: Vec<String> = void;
                for word in void {
                    let target = mount.destination().display();
                    self.ignored.push(format!("mount {target}: `{word}` means nothing to a bind mount"));
                }
                mount.set_options(Some(kept));
            }
            if let Some(source) = mount.source().clone().filter(|source| bind && source.is_relative()) {
                mount.set_source(Some(self.path.join(source)));
            }
        }
    }

    /// The class of service that it asks for.
    pub(crate) fn rdt(&self, id: &str) -> Result<Option<RdtPlan>> {
        if self.spec.linux().as_ref().is_none_or(|linux| linux.intel_rdt().is_none()) {
            return Ok(None);
        }
        let further: Further = serde_json::from_slice(&self.text)
            .map_err(|error| Error::new(format!("linux.intelRdt: {error}")))?;
        let asked = further.linux.and_then(|linux| linux.intel_rdt).unwrap_or_default();
        RdtPlan::new(&asked, id).map(Some).map_err(|e| Error::new(e.to_string()))
    }

    fn mappings(&self) -> Result<Vec<Option<IdMap>>> {
        // Most specifications have none, and reading them twice costs.
        if !self.text.windows(11).any(|window| window == b"uidMappings") {
            return Ok(Vec::new());
        }
        let further: Further = serde_json::from_slice(&self.text)
            .map_err(|error| Error::new(format!("mappings of mounts: {error}")))?;
        let list = |list: Option<Vec<Mapping>>| -> Vec<IdMapping> {
            let one = |m: Mapping| IdMapping { container: m.container, host: m.host, size: m.size };
            list.unwrap_or_default().into_iter().map(one).collect()
        };
        let one = |mount: FurtherMount| {
            let map =
                IdMap { uids: list(mount.uid_mappings), gids: list(mount.gid_mappings), recursive: false };
            if map.uids.is_empty() != map.gids.is_empty() {
                return Err(Error::new("a mount has mappings of users or groups only: it needs both"));
            }
            Ok((!map.uids.is_empty()).then_some(map))
        };
        further.mounts.unwrap_or_default().into_iter().map(one).collect()
    }

    /// The container's filter again, for one more process.
    pub(crate) fn filter(&self, cache: &Path) -> Result<(Option<&LinuxSeccomp>, Option<Program>)> {
        let profile = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        Ok((profile, profile.map(|profile| self.compiled(profile, cache)).transpose()?))
    }

    fn compiled(&self, profile: &LinuxSeccomp, cache: &Path) -> Result<Program> {
        let mut program = filter::of(profile, cache)?;
        // The kernel takes it only of filters with a listener.
        if self.wait_killable && program.notifies() {
            program.flags |= cata_sys::seccomp::FLAG_WAIT_KILLABLE_RECV;
        }
        Ok(program)
    }

    /// Whether there is something to start.
    pub(crate) fn has_process(&self) -> bool {
        self.spec.process().is_some()
    }
}

/// Reads a process of `exec --process`.
pub(crate) fn process(path: &Path, ignored: &mut Vec<String>) -> Result<Process> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    parse(&text, ignored).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(_)), Some(Ok(_))) => Ok(()),
        _ => Err(Error::new(format!("ociVersion `{version}`: this runtime implements version 1"))),
    }
}

/// Parses; when that fails, once more without what is only newer than the types: capabilities nobody knows are
/// warned about, as the specification wants it.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    ignored: &mut Vec<String>,
) -> std::result::Result<T, serde_json::Error> {
    let error = match serde_json::from_slice(text) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let Ok(mut document) = serde_json::from_slice::<Value>(text) else { return Err(error) };
    repair(&mut document, ignored);
    serde_json::from_value(document).map_err(|_| error)
}

fn repair(document: &mut Value, ignored: &mut Vec<String>) {
    for base in ["", "/process"] {
        if let Some(sets) =
            document.pointer_mut(&format!("{base}/capabilities")).and_then(Value::as_object_mut)
        {
            for list in sets.values_mut().filter_map(Value::as_array_mut) {
                list.retain(|name| {
                    let known = name.as_str().is_some_and(|name| cata_sys::capability::bit(name).is_some());
                    if !known {
                        ignored.push(format!("{name}: no such capability"));
                    }
                    known
                });
            }
        }
        // The types spell the flags of schedulers in a way of their own.
        let flags = document.pointer_mut(&format!("{base}/scheduler/flags")).and_then(Value::as_array_mut);
        for flag in flags.into_iter().flatten() {
            let name = match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
                Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
                _ => continue,
            };
            *flag = Value::from(name);
        }
    }
    if let Some(flags) = document.pointer_mut("/linux/seccomp/flags").and_then(Value::as_array_mut) {
        flags.retain(|flag| flag != WAIT_KILLABLE);
    }
    let architectures = document.pointer_mut("/linux/seccomp/architectures").and_then(Value::as_array_mut);
    if let Some(list) = architectures {
        list.retain(|name| {
            let known = serde_json::from_value::<cata_spec::runtime::Arch>(name.clone()).is_ok();
            if !known {
                ignored.push(format!("{name}: no such architecture for system calls"));
            }
            known
        });
    }
    ignored.sort();
    ignored.dedup();
}
