//! The world's part of the machine's cgroup trees: one child of each, seen as the root from inside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `None`: version 2. Otherwise the option that selects it again (`memory`, `none,name=systemd`).
    pub v1: Option<String>,
}

/// Every cgroup mount that `/proc/self/mountinfo` lists.
///
/// # Errors
/// When it cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(mount) = front.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut back = back.split(' ');
        let v1 = match back.next() {
            Some("cgroup2") => None,
            Some("cgroup") => Some(selection(back.nth(1).unwrap_or_default())),
            _ => continue,
        };
        found.retain(|other| other.mount != mount);
        found.push(Hierarchy { mount, v1 });
    }
    found
}

/// From the mount's own options (`rw,memory`, `rw,xattr,name=systemd`), those that select the hierarchy.
fn selection(options: &str) -> String {
    const NOT_CONTROLLERS: [&str; 5] = ["rw", "ro", "xattr", "noprefix", "clone_children"];
    let chosen = |option: &&str| !NOT_CONTROLLERS.contains(option) && !option.starts_with("release_agent=");
    let controllers: Vec<&str> = options.split(',').filter(chosen).collect();
    match controllers.as_slice() {
        [name] if name.starts_with("name=") => format!("none,{name}"),
        _ => controllers.join(","),
    }
}

/// Makes `/name` in every hierarchy and puts the calling process there.
///
/// # Errors
/// When a group cannot be made or joined.
pub fn join(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.mount.join(name);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {}", group.display()));
            }
            _ => {}
        }
        // A cpuset of version 1 is born empty and then takes nobody in.
        if hierarchy.v1.is_some() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(hierarchy.mount.join(file)) {
                    fs::write(group.join(file), value)
                        .with_context(|| format!("write {}", group.display()))?;
                }
            }
        }
        let procs = group.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("write {}", procs.display()))?;
    }
    Ok(())
}

/// Mounts the hierarchies again where they were, now rooted at the caller's cgroup namespace.
///
/// # Errors
/// When a mount fails.
pub fn mount(hierarchies: &[Hierarchy]) -> Result<()> {
    let base = Path::new("/sys/fs/cgroup");
    let none = None::<&std::ffi::CStr>;
    if hierarchies.iter().any(|hierarchy| hierarchy.v1.is_some()) {
        rustix::mount::mount("tmpfs", base, "tmpfs", MountFlags::empty(), c"mode=755")
            .context("mount a tmpfs on /sys/fs/cgroup")?;
    }
    for hierarchy in hierarchies {
        let at = &hierarchy.mount;
        fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
        let mounted = match &hierarchy.v1 {
            None => rustix::mount::mount("cgroup2", at, "cgroup2", MountFlags::empty(), none),
            Some(options) => {
                let options = std::ffi::CString::new(options.as_str()).context("a mount option")?;
                rustix::mount::mount("cgroup", at, "cgroup", MountFlags::empty(), options.as_c_str())
            }
        };
        mounted.with_context(|| format!("mount cgroups on {}", at.display()))?;
        // Distributions link each controller of a joint mount (`cpu -> cpu,cpuacct`).
        let name = at.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for single in name.split(',').filter(|_| name.contains(',')) {
            let _ = std::os::unix::fs::symlink(&name, base.join(single));
        }
    }
    if let [Hierarchy { mount, v1: None }] = hierarchies {
        open_to_children(mount)?;
    }
    Ok(())
}

/// On pure version 2, a group with processes cannot give controllers to its children: ours moves aside.
fn open_to_children(root: &Path) -> Result<()> {
    let aside = root.join("init");
    fs::create_dir(&aside).with_context(|| format!("create {}", aside.display()))?;
    fs::write(aside.join("cgroup.procs"), "0").context("leave the world's root cgroup")?;
    let controllers =
        fs::read_to_string(root.join("cgroup.controllers")).context("read cgroup.controllers")?;
    for controller in controllers.split_whitespace() {
        // One that the kernel refuses (cpu with real-time threads about) is simply not offered.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

/// Removes `/name` and everything beneath it from every hierarchy. The processes in it have ended or are ending.
pub fn remove(name: &str) {
    let Ok(hierarchies) = hierarchies() else { return };
    for hierarchy in hierarchies {
        let group = hierarchy.mount.join(name);
        // A group is busy for as long as the kernel takes its processes away.
        for _ in 0..500 {
            if remove_tree(&group).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Lets everything go on that is frozen in the world whose process 1 is about to end: on version 1 it would not die,
/// and the world would not end.
pub fn thaw() {
    for hierarchy in hierarchies().unwrap_or_default() {
        thaw_tree(&hierarchy.mount);
    }
}

fn thaw_tree(group: &Path) {
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        // Each version has a file of its own.
        if group.join(file).exists() {
            let _ = fs::write(group.join(file), value);
        }
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            thaw_tree(&entry.path());
        }
    }
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Removes the groups of worlds whose maker is gone, as `is_stale` tells by their names.
pub fn sweep(is_stale: impl Fn(&str) -> bool) {
    for hierarchy in hierarchies().unwrap_or_default() {
        let Ok(entries) = fs::read_dir(&hierarchy.mount) else { continue };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if is_stale(&name) {
                let _ = remove_tree(&hierarchy.mount.join(name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_parse_tells_versions_and_selections() {
        let text = "\
30 1 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 1 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 1 0:28 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 1 0:30 / /proc rw - proc proc rw
";
        let found: Vec<_> = parse(text).into_iter().map(|h| (h.mount, h.v1)).collect();
        let expect = |path: &str, v1: Option<&str>| (PathBuf::from(path), v1.map(str::to_owned));
        assert_eq!(
            found,
            [
                expect("/sys/fs/cgroup/memory", Some("memory")),
                expect("/sys/fs/cgroup/cpu,cpuacct", Some("cpu,cpuacct")),
                expect("/sys/fs/cgroup/systemd", Some("none,name=systemd")),
                expect("/sys/fs/cgroup/unified", None),
            ]
        );
    }
}
