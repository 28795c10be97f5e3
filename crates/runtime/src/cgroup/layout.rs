//! What this machine offers: which cgroup hierarchies are mounted where, with which controllers.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CgroupError, Directory};

/// A kernel controller, version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Pids,
    Devices,
    Freezer,
    Blkio,
    /// Version 2's `blkio`.
    Io,
    Hugetlb,
    NetCls,
    NetPrio,
    PerfEvent,
    Rdma,
    Misc,
    Dmem,
}

const NAMES: &[(Controller, &str)] = &[
    (Controller::Cpu, "cpu"),
    (Controller::Cpuacct, "cpuacct"),
    (Controller::Cpuset, "cpuset"),
    (Controller::Memory, "memory"),
    (Controller::Pids, "pids"),
    (Controller::Devices, "devices"),
    (Controller::Freezer, "freezer"),
    (Controller::Blkio, "blkio"),
    (Controller::Io, "io"),
    (Controller::Hugetlb, "hugetlb"),
    (Controller::NetCls, "net_cls"),
    (Controller::NetPrio, "net_prio"),
    (Controller::PerfEvent, "perf_event"),
    (Controller::Rdma, "rdma"),
    (Controller::Misc, "misc"),
    (Controller::Dmem, "dmem"),
];

impl Controller {
    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(controller, _)| *controller == self).map_or("", |(_, name)| name)
    }

    /// `None` for a controller this program does not know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(controller, _)| *controller)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One mounted tree of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is version 2.
    pub unified: bool,
    /// What can be limited in it.
    pub controllers: Vec<Controller>,
    /// Version 1: `name=…`.
    pub name: Option<String>,
    /// The caller's own cgroup, relative to `mount`; empty where it cannot be seen.
    pub own: PathBuf,
}

/// Everything about cgroups on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order they were mounted.
    pub hierarchies: Vec<Hierarchy>,
    /// Major and minor version of the running kernel.
    pub kernel: (u32, u32),
}

impl Layout {
    /// Looks at `/proc/self/mountinfo`, `/proc/self/cgroup` and `cgroup.controllers`.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`], or what could not be read.
    pub fn detect() -> Result<Self, CgroupError> {
        Self::seen_by("self")
    }

    /// The same with another process' cgroups for the caller's own.
    ///
    /// # Errors
    /// As [`Layout::detect`].
    pub fn of(pid: i32) -> Result<Self, CgroupError> {
        Self::seen_by(&pid.to_string())
    }

    fn seen_by(process: &str) -> Result<Self, CgroupError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| CgroupError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            })
        };
        let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
        let own = read(&PathBuf::from(format!("/proc/{process}/cgroup")))?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut layout = Self::parse(&mountinfo, &own, &release)?;
        if let Some(unified) = layout.hierarchies.iter_mut().find(|h| h.unified) {
            unified.controllers = parse_controllers(&read(&unified.mount.join("cgroup.controllers"))?);
        }
        Ok(layout)
    }

    /// The pure part of [`Layout::detect`]; the controllers of version 2 are not in these files.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`], [`CgroupError::Proc`].
    pub fn parse(mountinfo: &str, own: &str, release: &str) -> Result<Self, CgroupError> {
        let memberships = own.lines().map(parse_membership).collect::<Result<Vec<_>, _>>()?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some(mounted) = parse_mount(line) else { continue };
            let own = memberships.iter().find(|(names, _)| mounted.is(names)).map_or("/", |(_, path)| *path);
            let hierarchy = Hierarchy {
                own: below(&mounted.root, own),
                mount: PathBuf::from(mounted.point),
                unified: mounted.unified,
                name: mounted.name,
                controllers: mounted.controllers,
            };
            let same = |other: &Hierarchy| {
                (other.unified, &other.controllers, &other.name)
                    == (hierarchy.unified, &hierarchy.controllers, &hierarchy.name)
            };
            // Bind mounts of a hierarchy appear as further mounts of it.
            if !hierarchies.iter().any(same) {
                hierarchies.push(hierarchy);
            }
        }
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(Self { hierarchies, kernel: parse_release(release) })
    }

    /// Version 2 with nothing beside it.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.hierarchies.iter().all(|h| h.unified || h.controllers.is_empty()) && self.unified().is_some()
    }

    /// The cgroup2 hierarchy; on a hybrid machine it lies beside those of version 1.
    #[must_use]
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.unified)
    }

    /// The caller's own cgroup where processes are kept together: in the cgroup2 hierarchy, or in systemd's own
    /// one of version 1. Absolute, as a plan wants it; `None`: it is in none below the top one.
    #[must_use]
    pub fn own_path(&self) -> Option<PathBuf> {
        let systemd = self.hierarchies.iter().find(|h| h.name.as_deref() == Some("systemd"));
        let mut homes = self.unified().into_iter().chain(systemd);
        let home = homes.find(|h| !h.own.as_os_str().is_empty())?;
        Some(Path::new("/").join(&home.own))
    }

    /// The directories of the caller's own cgroup, in every hierarchy in which it has this name.
    #[must_use]
    pub fn own_directories(&self, name: &str) -> Vec<Directory> {
        let own = self.hierarchies.iter().filter(|h| h.own.file_name().is_some_and(|own| own == name));
        own.map(|h| Directory {
            mount: h.mount.clone(),
            path: h.own.clone(),
            unified: h.unified,
            controllers: h.controllers.clone(),
            needed: Vec::new(),
        })
        .collect()
    }

    /// The hierarchy that a controller is in.
    #[must_use]
    pub fn with(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.controllers.contains(&controller))
    }
}

/// A line of `/proc/self/cgroup`: `4:memory:/path`.
fn parse_membership(line: &str) -> Result<(&str, &str), CgroupError> {
    let mut fields = line.splitn(3, ':').skip(1);
    match (fields.next(), fields.next()) {
        (Some(names), Some(path)) => Ok((names, path)),
        _ => Err(CgroupError::Proc { file: "/proc/self/cgroup", line: line.to_owned() }),
    }
}

/// What `cgroup.controllers` lists.
fn parse_controllers(text: &str) -> Vec<Controller> {
    text.split_ascii_whitespace().filter_map(Controller::from_name).collect()
}

/// `6.1.0-25-amd64`; (0, 0) for something else, which uses nothing that is new.
fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

struct Mounted {
    root: String,
    point: String,
    unified: bool,
    controllers: Vec<Controller>,
    /// As `/proc/self/cgroup` lists them.
    names: Vec<String>,
    name: Option<String>,
}

impl Mounted {
    fn is(&self, names: &str) -> bool {
        if self.unified {
            return names.is_empty();
        }
        !names.is_empty() && names.split(',').all(|name| self.names.iter().any(|mine| mine == name))
    }
}

/// A line of `/proc/self/mountinfo`; `None` when it is no cgroup.
fn parse_mount(line: &str) -> Option<Mounted> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let unified = match system.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = system.nth(1)?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let known = |option: &&str| Controller::from_name(option).is_some() || option.starts_with("name=");
    let names: Vec<String> = match unified {
        true => Vec::new(),
        false => options.split(',').filter(known).map(str::to_owned).collect(),
    };
    let controllers = names.iter().filter_map(|name| Controller::from_name(name)).collect();
    let name = names.iter().find_map(|name| name.strip_prefix("name=")).map(str::to_owned);
    Some(Mounted { root, point, unified, controllers, names, name })
}

/// The kernel writes blanks in paths as `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Our own cgroup relative to what is mounted. In a cgroup namespace that is younger than the mount the
/// mount's root reads `/..`: where we are below it cannot be known.
fn below(root: &str, own: &str) -> PathBuf {
    let own = Path::new(own);
    own.strip_prefix(root).map(Path::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
    const HYBRID_OWN: &str = "9:name=systemd:/\n4:memory:/agent/056c\n2:cpuacct:/\n1:cpu:/\n0::/";

    #[test]
    fn hybrid_machine() {
        let layout = Layout::parse(HYBRID, HYBRID_OWN, "6.18.44-fc-v595").unwrap();
        assert!(!layout.is_v2());
        assert_eq!(layout.kernel, (6, 18));
        assert_eq!(layout.hierarchies.len(), 5);
        let memory = layout.with(Controller::Memory).unwrap();
        assert_eq!(memory.mount, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(memory.own, Path::new("agent/056c"));
        assert_eq!(layout.unified().unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(layout.hierarchies[3].name.as_deref(), Some("systemd"));
        assert!(layout.with(Controller::Pids).is_none());
    }

    #[test]
    fn pure_v2_of_debian_12() {
        let mountinfo = "\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
        let own = "0::/user.slice/user-0.slice/session-1.scope\n";
        let layout = Layout::parse(mountinfo, own, "6.1.0-25-amd64").unwrap();
        assert!(layout.is_v2());
        assert_eq!(layout.kernel, (6, 1));
        let unified = layout.unified().unwrap();
        assert_eq!(unified.mount, Path::new("/sys/fs/cgroup"));
        assert_eq!(unified.own, Path::new("user.slice/user-0.slice/session-1.scope"));
        assert_eq!(
            parse_controllers("cpuset cpu io memory hugetlb pids rdma misc novel\n"),
            [
                Controller::Cpuset,
                Controller::Cpu,
                Controller::Io,
                Controller::Memory,
                Controller::Hugetlb,
                Controller::Pids,
                Controller::Rdma,
                Controller::Misc
            ]
        );
    }

    #[test]
    fn controllers_mounted_together() {
        let mountinfo = "\
30 25 0:26 / /sys/fs/cgroup/systemd rw,nosuid shared:9 - cgroup cgroup rw,xattr,name=systemd
33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
34 25 0:30 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:16 - cgroup cgroup rw,net_cls,net_prio";
        let own = "4:cpu,cpuacct:/user.slice\n3:net_cls,net_prio:/\n1:name=systemd:/user.slice/x";
        let layout = Layout::parse(mountinfo, own, "4.19.0").unwrap();
        let cpu = layout.with(Controller::Cpu).unwrap();
        assert_eq!(cpu.controllers, [Controller::Cpu, Controller::Cpuacct]);
        assert_eq!(layout.with(Controller::Cpuacct), Some(cpu));
        assert_eq!(cpu.own, Path::new("user.slice"));
        assert!(layout.unified().is_none() && !layout.is_v2());
    }

    #[test]
    fn inside_a_container() {
        // The host's cgroup namespace: the mount shows only the container's part of the tree.
        let mountinfo =
            "41 40 0:30 /docker/ab12 /sys/fs/cgroup/memory ro master:17 - cgroup cgroup rw,memory";
        let layout = Layout::parse(mountinfo, "5:memory:/docker/ab12/sub", "5.4.0").unwrap();
        assert_eq!(layout.hierarchies[0].own, Path::new("sub"));
        // A namespace of its own, younger than the mount.
        let mountinfo = "41 40 0:30 /../.. /sys/fs/cg\\040roup rw - cgroup2 cgroup rw";
        let layout = Layout::parse(mountinfo, "0::/", "6.1.0").unwrap();
        assert_eq!(layout.hierarchies[0].own, Path::new(""));
        assert_eq!(layout.hierarchies[0].mount, Path::new("/sys/fs/cg roup"));
        // And the usual case: both begin at the same place.
        let mountinfo = "41 40 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(Layout::parse(mountinfo, "0::/", "6.1.0").unwrap().hierarchies[0].own, Path::new(""));
    }

    #[test]
    fn nothing_mounted_or_understood() {
        let none = Layout::parse("24 30 0:22 / /sys rw - sysfs sysfs rw", "", "6.1");
        assert!(matches!(none, Err(CgroupError::NotMounted)));
        assert!(matches!(Layout::parse(HYBRID, "nonsense", "6.1"), Err(CgroupError::Proc { .. })));
        assert_eq!(parse_release("unknown"), (0, 0));
    }
}
