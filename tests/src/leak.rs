//! What a container must not leave behind: processes, mounts, links, cgroups, files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup;
use crate::command::{PATIENCE, eventually};
use crate::seed;
use crate::world::{World, pids, shares_network};

/// Removes every container and asserts that nothing of them is left.
///
/// # Panics
/// When something is left, naming all of it.
pub fn assert_none(world: &World) {
    let ids = world.cata(&["ps", "--all", "--quiet", "--no-trunc"]).lines();
    if !ids.is_empty() {
        let mut args = vec!["rm", "--force", "--volumes"];
        args.extend(ids.iter().map(String::as_str));
        let _ = world.cata(&args).ok();
    }
    let mut left = Vec::new();
    let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("nothing is left", PATIENCE, || {
            left = find(world);
            left.is_empty().then_some(())
        });
    }));
    assert!(clean.is_ok(), "left behind:\n{}", left.join("\n"));
}

/// Everything that should not be there, a line each.
#[must_use]
pub fn find(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    let me = std::process::id();
    for pid in pids().into_iter().filter(|pid| *pid != 1 && *pid != me) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        left.push(format!("process {pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")));
    }
    let ours = [world.root(), world.state()];
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let at = line.split(' ').nth(4).unwrap_or_default();
        let at = Path::new(at);
        if ours.iter().any(|dir| at.starts_with(dir)) && !seed::is_lent(world, at) {
            left.push(format!("mount {}", at.display()));
        }
    }
    for link in names(Path::new("/sys/class/net")) {
        // A network keeps its bridge for as long as the network exists.
        if !shares_network()
            && link != "lo"
            && !Path::new("/sys/class/net").join(&link).join("bridge").exists()
        {
            left.push(format!("network link {link}"));
        }
    }
    for hierarchy in cgroup::hierarchies().unwrap_or_default() {
        walk(&hierarchy.mount, &mut |dir| {
            if is_id(dir) {
                left.push(format!("cgroup {}", dir.display()));
            }
        });
    }
    for dir in ["containers", "names", "users"] {
        left.extend(names(&world.root().join(dir)).into_iter().map(|name| format!("root/{dir}/{name}")));
    }
    for network in names(&world.root().join("networks")) {
        let leases = world.root().join("networks").join(&network).join("leases");
        left.extend(names(&leases).into_iter().map(|lease| format!("lease {lease} of network {network}")));
    }
    let state = names(&world.state());
    left.extend(state.into_iter().filter(|name| is_id(Path::new(name))).map(|name| format!("state/{name}")));
    left
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether the last part of a path holds a container's id, alone or as `cata-<id>.scope` and the like.
fn is_id(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split(|c: char| !c.is_ascii_hexdigit()).any(|part| part.len() == 64)
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path: PathBuf = entry.path();
            visit(&path);
            walk(&path, visit);
        }
    }
}
