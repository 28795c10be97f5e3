//! Limits: memory, processes, CPU, ulimits, and what is said when they are hit.

use std::path::{Path, PathBuf};

use cata_tests::cgroup;
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(memory_limit_is_set_and_kills),
        test!(pids_limit_is_set),
        test!(cpu_limits_are_set),
        test!(ulimits),
        test!(cgroup_parent),
        test!(memory_too_small),
        test!(limits_are_shown),
    ]
}

/// The cgroup of a running container in the hierarchy that has this controller.
fn group(w: &World, container: &str, controller: &str) -> PathBuf {
    let pid = w.field(container, "{{.State.Pid}}");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for hierarchy in cgroup::hierarchies().unwrap() {
        let wanted = match &hierarchy.v1 {
            Some(options) if options.split(',').any(|name| name == controller) => format!(":{options}:"),
            None if hierarchy.mount == Path::new("/sys/fs/cgroup") => "::".to_owned(),
            _ => continue,
        };
        let path = groups.lines().find_map(|line| line.split_once(&wanted)).unwrap().1;
        return hierarchy.mount.join(path.trim_start_matches('/'));
    }
    panic!("no hierarchy has {controller}");
}

/// The first of these files that exists: version 1's and version 2's name of the same thing.
fn read(group: &Path, names: [&str; 2]) -> String {
    let file = names.iter().map(|name| group.join(name)).find(|path| path.exists()).unwrap();
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

fn memory_limit_is_set_and_kills(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "mm", "--memory", "32m", "busybox", "sleep", "600"]).ok();
    let limit = read(&group(w, "mm", "memory"), ["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(limit, (32 << 20).to_string());
    // Reads a stream without lines, so that all of it is held.
    let eat = [
        "run",
        "--name",
        "eat",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail -c 100m /dev/zero",
    ];
    let done = w.cata(&eat);
    assert_eq!(done.code(), 137, "{done}");
    assert_eq!(w.field("eat", "{{.State.OOMKilled}}"), "true");
    assert!(w.cata(&["ps", "-a"]).ok().stdout.contains("OOM"), "ps does not name the OOM kill");
}

fn pids_limit_is_set(w: &World) {
    let _ = w.cata(&["run", "-d", "--name", "pp", "--pids-limit", "7", "busybox", "sleep", "600"]).ok();
    assert_eq!(read(&group(w, "pp", "pids"), ["pids.max", "pids.max"]), "7");
    let done = w.cata(&["exec", "pp", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    assert!(done.stderr.contains("can't fork"), "{done}");
}

fn cpu_limits_are_set(w: &World) {
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "cc",
            "--cpus",
            "0.5",
            "--cpu-shares",
            "512",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    let group = group(w, "cc", "cpu");
    let quota = read(&group, ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let _ = w.cata(&["run", "-d", "--name", "ss", "--cpuset-cpus", "0", "busybox", "sleep", "600"]).ok();
    let allowed = w.cata(&["exec", "ss", "grep", "Cpus_allowed_list", "/proc/self/status"]).text();
    assert_eq!(allowed.split_whitespace().nth(1), Some("0"));
    w.cata(&["run", "--rm", "--cpus", "-1", "busybox", "true"]).fails(125, &["cpus"]);
}

fn ulimits(w: &World) {
    let done = w.cata(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=100:200",
        "busybox",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn",
    ]);
    assert_eq!(done.lines(), ["100", "200"]);
    w.cata(&["run", "--rm", "--ulimit", "wings=2", "busybox", "true"]).fails(125, &["wings"]);
}

fn cgroup_parent(w: &World) {
    let _ =
        w.cata(&["run", "-d", "--name", "cc", "--cgroup-parent", "/berth", "busybox", "sleep", "600"]).ok();
    let group = group(w, "cc", "memory");
    assert!(group.parent().unwrap().ends_with("berth"), "{}", group.display());
    let id = w.field("cc", "{{.Id}}");
    assert!(group.to_string_lossy().contains(&id), "{}", group.display());
}

fn memory_too_small(w: &World) {
    w.cata(&["run", "--rm", "--memory", "1m", "busybox", "true"]).fails(125, &["memory", "6"]);
    w.cata(&["run", "--rm", "--memory", "lots", "busybox", "true"]).fails(125, &["lots"]);
    assert_eq!(w.cata(&["ps", "-aq"]).text(), "");
}

fn limits_are_shown(w: &World) {
    let args = [
        "create",
        "--name",
        "cc",
        "--memory",
        "64m",
        "--cpus",
        "1.5",
        "--pids-limit",
        "9",
        "busybox",
        "true",
    ];
    let _ = w.cata(&args).ok();
    let host = &w.inspect("cc")["HostConfig"];
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["NanoCpus"], 1_500_000_000);
    assert_eq!(host["PidsLimit"], 9);
}
