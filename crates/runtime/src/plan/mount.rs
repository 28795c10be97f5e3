//! Mounts: OCI's fstab-style options taken apart into what the kernel's mount calls take.

use std::os::fd::OwnedFd;
use std::path::{Component, PathBuf};

use cata_spec::runtime as oci;
use cata_sys::mount::{Depth, attribute as attr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::namespace::IdMapping;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, absolute, inside.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// `MOUNT_ATTR_*` of the mount itself: bits to set.
    pub set: u64,
    /// Bits to clear (of a bind, whose source has attributes of its own).
    pub clear: u64,
    /// Bits to set on everything mounted below too.
    pub set_recursive: u64,
    /// Bits to clear on everything mounted below too.
    pub clear_recursive: u64,
    /// How mount events travel; private unless said otherwise.
    pub propagation: Option<Propagation>,
    /// Files belong to other ids here than at the source.
    #[serde(default)]
    pub idmap: Option<IdMap>,
    /// A new file system starts with what it hides.
    #[serde(default)]
    pub copy_up: bool,
}

/// Whose files are whose; empty: as the container's user namespace maps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdMap {
    /// Ids at the source (`container`) and here (`host`).
    pub uids: Vec<IdMapping>,
    /// See `uids`.
    pub gids: Vec<IdMapping>,
    /// Everything mounted below too.
    pub recursive: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind(Bind),
    /// A new file system.
    Filesystem {
        /// `proc`, `tmpfs`, …
        fstype: String,
        /// Shown in `/proc/mounts`, or the device.
        source: String,
        /// Its options, in order; `None`: a flag.
        options: Vec<(String, Option<String>)>,
    },
    /// The container's own view of its cgroup.
    Cgroup,
    /// Nothing new: attributes of what is mounted there.
    Remount,
}

/// A file or directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the host or in `namespace`.
    pub source: PathBuf,
    /// With everything that is mounted below it.
    pub recursive: bool,
    /// `/proc/<pid>/ns/mnt` of another container whose mount is to be shared (its `/dev/shm`).
    #[serde(default)]
    pub namespace: Option<PathBuf>,
    /// A directory that others write to, which `source` is in: links in it lead to nothing outside.
    #[serde(default)]
    pub beneath: Option<PathBuf>,
}

impl Bind {
    /// A detached copy of it.
    pub(crate) fn tree(&self) -> Result<OwnedFd, Errno> {
        let depth = if self.recursive { Depth::Recursive } else { Depth::This };
        match &self.beneath {
            None => cata_sys::mount::clone_path(&self.source, depth),
            Some(directory) => {
                let rest = self.source.strip_prefix(directory).map_err(|_| Errno::INVAL)?;
                cata_sys::mount::clone_beneath(directory, rest, depth)
            }
        }
    }
}

/// How mount events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word.strip_prefix('r').filter(|w| !w.is_empty()).unwrap_or(word) {
            "private" => Some(Self::Private),
            "slave" => Some(Self::Slave),
            "shared" => Some(Self::Shared),
            "unbindable" => Some(Self::Unbindable),
            _ => None,
        }
    }

    /// The kernel's flag.
    #[must_use]
    pub fn flag(self) -> u64 {
        match self {
            Self::Private => attr::PRIVATE,
            Self::Slave => attr::SLAVE,
            Self::Shared => attr::SHARED,
            Self::Unbindable => attr::UNBINDABLE,
        }
    }
}

/// An option that sets or clears an attribute: (word, bits to set, bits to clear).
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("noatime", attr::NOATIME, attr::ATIME),
    ("atime", attr::RELATIME, attr::ATIME),
    ("relatime", attr::RELATIME, attr::ATIME),
    ("norelatime", attr::STRICTATIME, attr::ATIME),
    ("strictatime", attr::STRICTATIME, attr::ATIME),
    ("nostrictatime", attr::RELATIME, attr::ATIME),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
    ("symfollow", 0, attr::NOSYMFOLLOW),
];

/// Words of mounts that this runtime understands itself; others go to the file system.
#[must_use]
pub fn mount_options() -> Vec<String> {
    let mut words: Vec<String> = ATTRIBUTES.iter().map(|(word, ..)| (*word).to_owned()).collect();
    words.extend(ATTRIBUTES.iter().map(|(word, ..)| format!("r{word}")));
    for word in ["private", "slave", "shared", "unbindable"] {
        words.push(word.to_owned());
        words.push(format!("r{word}"));
    }
    words.extend(["bind", "rbind", "remount", "defaults", "idmap", "ridmap", "tmpcopyup"].map(str::to_owned));
    words.extend(
        ["async", "nomand", "noiversion", "iversion", "nolazytime", "silent", "loud"].map(str::to_owned),
    );
    words.sort();
    words
}

/// Plans one mount.
pub(super) fn mount(spec: &oci::Mount, mapping: Option<IdMap>) -> Result<Mount, PlanError> {
    let target = spec.destination().clone();
    let wrong = |reason: String| PlanError::Mount { target: target.clone(), reason };
    if !target.is_absolute() {
        return Err(PlanError::NotAbsolute { what: "mount", path: target });
    }
    if target.components().all(|part| part == Component::RootDir) {
        return Err(wrong("the root itself cannot be a mount".into()));
    }
    let words = spec.options().as_ref().map(Vec::as_slice).unwrap_or_default();
    let fstype = spec.typ().as_deref().unwrap_or_default();
    let binds = |word: &String| word == "bind" || word == "rbind";
    let bind = fstype == "bind" || words.iter().any(binds);
    let kind = if words.iter().any(|word| word == "remount") {
        MountKind::Remount
    } else if bind {
        let source = spec.source().clone().ok_or_else(|| wrong("a bind mount needs a source".into()))?;
        if !source.is_absolute() {
            return Err(PlanError::NotAbsolute { what: "mount source", path: source });
        }
        // The specification leaves type `bind` without an option open; runc takes it as recursive.
        MountKind::Bind(Bind {
            source,
            recursive: !words.iter().any(|w| w == "bind"),
            namespace: None,
            beneath: None,
        })
    } else if fstype == "cgroup" || fstype == "cgroup2" {
        MountKind::Cgroup
    } else if fstype.is_empty() {
        return Err(wrong("neither a type nor `bind` is given".into()));
    } else {
        let source =
            spec.source().as_ref().map_or_else(|| fstype.into(), |s| s.to_string_lossy().into_owned());
        MountKind::Filesystem { fstype: fstype.into(), source, options: Vec::new() }
    };
    let mut planned = Mount {
        target: target.clone(),
        kind,
        set: 0,
        clear: 0,
        set_recursive: 0,
        clear_recursive: 0,
        propagation: None,
        idmap: mapping,
        copy_up: false,
    };
    for word in words {
        apply(&mut planned, word).map_err(wrong)?;
    }
    planned.close_sys();
    Ok(planned)
}

impl Mount {
    /// The host's `/sys`, shown read-only, is so with all that is mounted in it: cgroups that belong to who starts
    /// the container would else be the container's to change (CVE-2023-25809).
    pub fn close_sys(&mut self) {
        if let MountKind::Bind(bind) = &self.kind
            && bind.recursive
            && bind.source.starts_with("/sys")
            && self.set & attr::RDONLY != 0
        {
            self.set_recursive |= attr::RDONLY;
        }
    }
}

fn apply(mount: &mut Mount, word: &str) -> Result<(), String> {
    let find = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
    match word {
        "" | "defaults" | "bind" | "rbind" | "remount" => return Ok(()),
        // What every mount is anyway; changes of inodes are counted by each file system that can.
        "async" | "nomand" | "noiversion" | "iversion" | "nolazytime" | "silent" | "loud" => return Ok(()),
        "idmap" | "ridmap" => {
            if !matches!(mount.kind, MountKind::Bind(_)) {
                return Err(format!("option `{word}` applies to a bind mount only"));
            }
            mount.idmap.get_or_insert_default().recursive = word == "ridmap";
            return Ok(());
        }
        "tmpcopyup" => {
            if !matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs") {
                return Err("option `tmpcopyup` applies to a tmpfs only".to_owned());
            }
            mount.copy_up = true;
            return Ok(());
        }
        _ => {}
    }
    if let Some(&(_, set, clear)) = find(word) {
        mount.set = mount.set & !clear | set;
        mount.clear = mount.clear & !set | clear;
        return Ok(());
    }
    if let Some(propagation) = Propagation::parse(word) {
        mount.propagation = Some(propagation);
        return Ok(());
    }
    if let Some(&(_, set, clear)) = word.strip_prefix('r').and_then(find) {
        mount.set_recursive = mount.set_recursive & !clear | set;
        mount.clear_recursive = mount.clear_recursive & !set | clear;
        return Ok(());
    }
    match &mut mount.kind {
        MountKind::Filesystem { options, .. } => {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (word, None),
            };
            options.push((key.to_owned(), value));
            Ok(())
        }
        MountKind::Bind(_) => Err(format!("option `{word}` does not apply to a bind mount")),
        MountKind::Remount => Err(format!("option `{word}` does not apply to a remount")),
        MountKind::Cgroup => Err(format!("option `{word}` does not apply to the cgroup mount")),
    }
}
