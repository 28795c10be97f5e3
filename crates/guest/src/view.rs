//! What a process sees of the kernel it runs on: the same look at a process of the host and at one of a guest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cata_sys::path::Root;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};

use crate::protocol::View;

/// So many device nodes are told at most.
const MOST: usize = 512;
/// Directories below `/dev` that are looked into: `pts`, `mapper`, `net` …
const DEEP: usize = 2;

/// What a process sees, by its `/proc/<pid>`.
///
/// # Errors
/// It has ended, or its root cannot be read.
pub fn of(pid: i32) -> io::Result<View> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mounts = fs::read_to_string(proc.join("mountinfo"))?;
    let mut nodes = Vec::new();
    // A root directory is the process's own business: its /dev is not followed out of it.
    let root = Root::open_trusted(&proc.join("root"))?;
    if let Ok(dev) = root.open(Path::new("dev"), OFlags::RDONLY | OFlags::DIRECTORY) {
        list_nodes(dev, "", DEEP, &mut nodes)?;
    }
    nodes.sort();
    let memory = text("/proc/meminfo");
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    Ok(View {
        kernel: text("/proc/sys/kernel/osrelease"),
        boot: text("/proc/sys/kernel/random/boot_id"),
        cpus: count(&text("/sys/devices/system/cpu/online")),
        memory: total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024,
        namespaces: namespaces(&proc.join("ns"))?,
        root: root_type(&mounts).unwrap_or_default(),
        nodes,
        drivers: drivers(),
    })
}

/// PURE: the type of the file system at `/` (proc_pid_mountinfo(5)); the last one mounted there is seen.
fn root_type(mountinfo: &str) -> Option<String> {
    let at_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let line = mountinfo.lines().rfind(at_root)?;
    Some(line.split_once(" - ")?.1.split(' ').next()?.to_owned())
}

/// PURE: how many numbers a list such as `0-3,6` has.
fn count(list: &str) -> u32 {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.split(',').filter_map(range).sum()
}

fn namespaces(dir: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What its children will have is not what it has.
        if name.ends_with("_for_children") {
            continue;
        }
        // `pid:[4026531836]`
        let link = fs::read_link(entry.path())?;
        let number =
            link.to_string_lossy().split_once('[').and_then(|(_, n)| n.strip_suffix(']')?.parse().ok());
        found.extend(number.map(|number| (name, number)));
    }
    Ok(found)
}

fn list_nodes(
    dir: std::os::fd::OwnedFd,
    below: &str,
    deep: usize,
    nodes: &mut Vec<String>,
) -> io::Result<()> {
    let dir = Root::new(dir);
    let list = Dir::read_from(dir.open(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?)?;
    for entry in list {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." || nodes.len() >= MOST {
            continue;
        }
        // Gone meanwhile, or not to be looked at.
        let here = dir.open(Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
        let Ok(stat) = statat(&here, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let path = format!("{below}{name}");
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => nodes.push(path),
            FileType::Directory if deep > 1 => {
                if let Ok(inner) =
                    dir.open_without_links(Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY)
                {
                    list_nodes(inner, &format!("{path}/"), deep - 1, nodes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Of the devices of this kernel's machine, each once.
fn drivers() -> Vec<String> {
    let mut found = Vec::new();
    for bus in ["pci", "virtio"] {
        let devices = fs::read_dir(format!("/sys/bus/{bus}/devices")).into_iter().flatten().flatten();
        for device in devices {
            let driver = fs::read_link(device.path().join("driver")).ok();
            let name =
                driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            found.extend(name);
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_type_is_that_of_the_last_mount_at_the_root() {
        let text = "1 0 0:1 / / rw - rootfs rootfs rw\n\
                    22 1 0:20 / /proc rw - proc proc rw\n\
                    30 1 0:27 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a";
        assert_eq!(root_type(text).as_deref(), Some("overlay"));
        assert_eq!(root_type(""), None);
    }

    #[test]
    fn count_adds_ranges_up() {
        assert_eq!((count("0"), count("0-3"), count("0-1,4-5,7"), count(""), count("3-1")), (1, 4, 5, 0, 0));
    }

    #[test]
    fn own_view_is_that_of_this_kernel() {
        let view = of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(view.kernel, rustix::system::uname().release().to_string_lossy());
        assert!(view.cpus > 0 && view.memory > 0 && view.namespaces.contains_key("mnt"), "{view:?}");
    }
}
