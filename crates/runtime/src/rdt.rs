//! Intel RDT (and what AMD calls QoS): a class of service for cache and memory bandwidth, in the kernel's `resctrl`.
//!
//! [`RdtPlan`] is decided before; [`RdtPlan::enter`] puts a container's first process into its class, whose
//! children then are in it; [`RdtPlan::leave`] takes away what was made for the container alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The container's class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RdtPlan {
    /// Its name: one that others made or share, or the container's own; empty: the class of everybody.
    pub class: String,
    /// It is the container's own, and goes with it.
    pub own: bool,
    /// Lines of its `schemata`.
    pub schemata: Vec<String>,
    /// A group of this name that counts what the container uses.
    pub monitor: Option<String>,
}

/// What is asked for, as the specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RdtRequest {
    /// A class that containers may share.
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    /// Lines.
    pub schemata: Option<Vec<String>>,
    /// A line, before version 1.3 of the specification.
    pub l3_cache_schema: Option<String>,
    /// The same for memory.
    pub mem_bw_schema: Option<String>,
    /// Counts use.
    pub enable_monitoring: Option<bool>,
    /// The same before 1.3.
    #[serde(rename = "enableCMT")]
    pub enable_cmt: Option<bool>,
    /// The same before 1.3.
    #[serde(rename = "enableMBM")]
    pub enable_mbm: Option<bool>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// The kernel has none, or nobody has mounted it.
    #[error(
        "Intel RDT: no resctrl file system is mounted (`mount -t resctrl resctrl /sys/fs/resctrl`, where the kernel has it)"
    )]
    NotMounted,
    /// A name that is not one.
    #[error("Intel RDT: `{0}` cannot be the name of a class of service")]
    Name(String),
    /// A line that would be another.
    #[error("Intel RDT: `{0}` is not a line of a schema")]
    Line(String),
    /// Others have it, with other values.
    #[error("Intel RDT: class {class} exists and has not the line `{line}`")]
    Different {
        /// The class.
        class: String,
        /// What was asked for.
        line: String,
    },
    /// The kernel refused.
    #[error("Intel RDT: cannot {action} {}", path.display())]
    Io {
        /// What.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RdtPlan {
    /// Decides. `id`: the container's.
    ///
    /// # Errors
    /// [`RdtError::Name`], [`RdtError::Line`].
    pub fn new(asked: &RdtRequest, id: &str) -> Result<Self, RdtError> {
        let own = asked.clos_id.as_deref().is_none_or(str::is_empty);
        let class = match asked.clos_id.as_deref() {
            // The top directory is a class too.
            Some("/") => String::new(),
            Some(name) if !own => name.to_owned(),
            _ => id.to_owned(),
        };
        let reserved = ["info", "mon_groups", "mon_data", ".", ".."];
        if class.contains(['/', '\0', '\n']) || reserved.contains(&class.as_str()) {
            return Err(RdtError::Name(class));
        }
        let mut schemata = asked.schemata.clone().unwrap_or_default();
        if schemata.is_empty() {
            schemata.extend(asked.l3_cache_schema.iter().chain(&asked.mem_bw_schema).cloned());
        }
        let lines = schemata.iter().flat_map(|text| text.lines()).map(str::trim);
        let schemata: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if let Some(line) = schemata.iter().find(|line| !line.contains(':') || line.contains('\0')) {
            return Err(RdtError::Line(line.clone()));
        }
        let monitored = [asked.enable_monitoring, asked.enable_cmt, asked.enable_mbm].contains(&Some(true));
        Ok(Self { class, own, schemata, monitor: monitored.then(|| id.to_owned()) })
    }

    /// Puts a process into its class, which is made if it is not there.
    ///
    /// # Errors
    /// [`RdtError`]; then nothing that was made here remains.
    pub fn enter(&self, root: &Path, pid: i32) -> Result<(), RdtError> {
        let class = root.join(&self.class);
        let made = match fs::create_dir(&class) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed("create", &class)(error)),
        };
        let entered = self.fill(&class, made, pid);
        if entered.is_err() && made {
            // The first error is the one that tells something.
            let _ = fs::remove_dir(&class);
        }
        entered
    }

    fn fill(&self, class: &Path, made: bool, pid: i32) -> Result<(), RdtError> {
        let schemata = class.join("schemata");
        // Whoever shares a class must not change what the others have of it.
        if made || self.own {
            for line in &self.schemata {
                write(&schemata, &format!("{line}\n"))?;
            }
        } else {
            let now = fs::read_to_string(&schemata).map_err(failed("read", &schemata))?;
            if let Some(line) = self.schemata.iter().find(|line| !has(&now, line)) {
                return Err(RdtError::Different { class: self.class.clone(), line: line.clone() });
            }
        }
        write(&class.join("tasks"), &pid.to_string())?;
        if let Some(name) = &self.monitor {
            let group = class.join("mon_groups").join(name);
            match fs::create_dir(&group) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", &group)(error));
                }
                _ => {}
            }
            write(&group.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Takes away what was the container's alone.
    ///
    /// # Errors
    /// [`RdtError::Io`].
    pub fn leave(&self, root: &Path) -> Result<(), RdtError> {
        let class = root.join(&self.class);
        let group = self.monitor.as_ref().map(|name| class.join("mon_groups").join(name));
        // Its groups go with a class.
        for directory in group.into_iter().filter(|_| !self.own).chain(self.own.then_some(class)) {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where `resctrl` is mounted.
///
/// # Errors
/// [`RdtError::NotMounted`].
pub fn mounted() -> Result<PathBuf, RdtError> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|_| RdtError::NotMounted)?;
    find(&text).ok_or(RdtError::NotMounted)
}

fn find(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        system.starts_with("resctrl ").then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

/// Whether the kernel's `schemata` has a line, however it pads and completes it: `L3:0=ff;1=ff`.
fn has(schemata: &str, wanted: &str) -> bool {
    let Some((resource, values)) = wanted.split_once(':') else { return false };
    let same = |a: &str, b: &str| {
        let number =
            |text: &str| text.trim().trim_start_matches("0x").trim_start_matches('0').to_ascii_lowercase();
        number(a) == number(b)
    };
    let line = schemata.lines().filter_map(|line| line.split_once(':'));
    let Some((_, now)) = line.into_iter().find(|(name, _)| name.trim() == resource.trim()) else {
        return false;
    };
    let mut pairs = values.split(';').filter_map(|pair| pair.split_once('='));
    pairs.all(|(domain, value)| {
        let mut known = now.split(';').filter_map(|pair| pair.split_once('='));
        known.any(|(other, set)| other.trim() == domain.trim() && same(set, value))
    })
}

/// One line in one call.
fn write(path: &Path, text: &str) -> Result<(), RdtError> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RdtError {
    let path = path.to_owned();
    move |source| RdtError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<RdtPlan, RdtError> {
        RdtPlan::new(&serde_json::from_str(text).unwrap(), "c1")
    }

    /// A directory that plays the kernel's: files appear in it when they are written.
    #[test]
    fn a_class_of_its_own_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(r#"{"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "enableMonitoring": true}"#)
            .unwrap();
        assert!(plan.own);
        // The kernel makes this one with the class.
        fs::create_dir_all(root.path().join("c1/mon_groups")).unwrap();
        plan.enter(root.path(), 42).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(
            (read("c1/schemata"), read("c1/tasks")),
            ("L3:0=f\nMB:0=20\n".to_owned(), "42".to_owned())
        );
        assert_eq!(read("c1/mon_groups/c1/tasks"), "42");
        // As the kernel does, when the directory is removed.
        fs::remove_dir_all(root.path().join("c1")).unwrap();
        fs::create_dir(root.path().join("c1")).unwrap();
        plan.leave(root.path()).unwrap();
        assert!(!root.path().join("c1").exists());
        plan.leave(root.path()).unwrap();
    }

    #[test]
    fn a_shared_class_is_joined_and_not_changed() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("gold");
        fs::create_dir(&class).unwrap();
        fs::write(class.join("schemata"), "    MB:0=100;1=100\n    L3:0=00f;1=fff\n").unwrap();
        let shared = plan(r#"{"closID": "gold", "schemata": ["L3:0=F"]}"#).unwrap();
        shared.enter(root.path(), 7).unwrap();
        assert_eq!(fs::read_to_string(class.join("tasks")).unwrap(), "7");
        let other = plan(r#"{"closID": "gold", "schemata": ["L3:0=1"]}"#).unwrap();
        assert!(matches!(other.enter(root.path(), 7), Err(RdtError::Different { .. })));
        shared.leave(root.path()).unwrap();
        assert!(class.exists());
        let top = plan(r#"{"closID": "/"}"#).unwrap();
        assert_eq!((top.class.as_str(), top.own), ("", false));
    }

    #[test]
    fn names_and_lines_stay_what_they_are() {
        for wrong in
            [r#"{"closID": ".."}"#, r#"{"closID": "a/b"}"#, r#"{"closID": "info"}"#, r#"{"schemata": ["x"]}"#]
        {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_mount_is_found_where_it_is() {
        let text = "30 25 0:26 / /sys rw - sysfs sysfs rw\n31 30 0:27 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw";
        assert_eq!(find(text), Some(PathBuf::from("/sys/fs/resctrl")));
        assert_eq!(find("30 25 0:26 / /resctrl rw - tmpfs resctrl rw"), None);
    }
}
