//! Which namespaces a container gets, and how its ids map to the host's.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::PlanError;
use cata_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxNetDevice};

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NamespaceKind {
    User,
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceSource {
    /// Made for the container.
    New,
    /// Somebody else's, named by a path as `/proc/<pid>/ns/net`.
    Path(PathBuf),
}

/// One namespace that is not the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its kind.
    pub kind: NamespaceKind,
    /// Where it comes from.
    pub source: NamespaceSource,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// A network device of the host that a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// Its name on the host.
    pub host: String,
    /// Its name inside.
    pub name: String,
}

/// In the order of their names: the document has none.
pub(super) fn net_devices(
    spec: Option<&HashMap<String, LinuxNetDevice>>,
    namespaces: &[Namespace],
) -> Result<Vec<NetDevice>, PlanError> {
    let mut planned = Vec::new();
    for (host, device) in spec.into_iter().flatten() {
        let name = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        for name in [host, &name] {
            if !is_device_name(name) {
                return Err(PlanError::NetDevice { name: name.clone(), reason: "is not a name of a device" });
            }
        }
        planned.push(NetDevice { host: host.clone(), name });
    }
    planned.sort_by(|a, b| a.host.cmp(&b.host));
    let mut names: Vec<&str> = planned.iter().map(|device| device.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PlanError::NetDevice { name: twice[0].to_owned(), reason: "is given twice" });
    }
    let own = namespaces.iter().any(|n| n.kind == NamespaceKind::Network);
    match planned.first() {
        Some(device) if !own => Err(PlanError::NetDevice {
            name: device.host.clone(),
            reason: "needs a network namespace to move to",
        }),
        _ => Ok(planned),
    }
}

/// As the kernel takes them; `%` would have it make one up.
fn is_device_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < 16
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

impl NamespaceKind {
    /// The file name below `/proc/<pid>/ns/`.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// Every kind, in the order in which a process joins them: the user namespace first, since it gives
    /// the right to join the others.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Cgroup, Self::Ipc, Self::Uts, Self::Network, Self::Pid, Self::Time, Self::Mount];
}

impl From<LinuxNamespaceType> for NamespaceKind {
    fn from(kind: LinuxNamespaceType) -> Self {
        match kind {
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Network => Self::Network,
            LinuxNamespaceType::Time => Self::Time,
        }
    }
}

pub(super) fn namespaces(spec: &[LinuxNamespace]) -> Result<Vec<Namespace>, PlanError> {
    let mut planned: Vec<Namespace> = Vec::with_capacity(spec.len());
    for wanted in spec {
        let kind = NamespaceKind::from(wanted.typ());
        if planned.iter().any(|n| n.kind == kind) {
            return Err(PlanError::NamespaceTwice(kind.file_name()));
        }
        let source = match wanted.path() {
            None => NamespaceSource::New,
            Some(path) if path.as_os_str().is_empty() => NamespaceSource::New,
            Some(path) if path.is_absolute() => NamespaceSource::Path(path.clone()),
            Some(path) => return Err(PlanError::NotAbsolute { what: "namespace", path: path.clone() }),
        };
        planned.push(Namespace { kind, source });
    }
    let has = |kind| planned.iter().any(|n| n.kind == kind);
    if has(NamespaceKind::User) && !has(NamespaceKind::Mount) {
        // Its users have no right to come back to the mount namespace that they would have to stay in.
        return Err(PlanError::HostMountNamespace);
    }
    Ok(planned)
}

pub(super) fn mappings(spec: Option<&Vec<LinuxIdMapping>>) -> Vec<IdMapping> {
    let map =
        |m: &LinuxIdMapping| IdMapping { container: m.container_id(), host: m.host_id(), size: m.size() };
    spec.map(|list| list.iter().map(map).collect()).unwrap_or_default()
}
