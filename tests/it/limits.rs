//! Limits: memory, processes, CPU, ulimits, and what is said when they are hit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_tests::cgroup;
use cata_tests::command::eventually;
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(stats_show_what_is_used),
        test!(memory_limit_is_set_and_kills).also_in_lab(),
        test!(pids_limit_is_set).also_in_lab(),
        test!(cpu_limits_are_set).also_in_lab(),
        test!(ulimits),
        test!(cgroup_parent).also_in_lab(),
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

fn stats_show_what_is_used(w: &World) {
    let busy = "head -c 20000000 /dev/zero > /mem/file; while :; do :; done";
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "busy",
            "-m",
            "100m",
            "--tmpfs",
            "/mem",
            "--pids-limit",
            "50",
            "busybox",
            "sh",
            "-c",
            busy,
        ])
        .ok();
    let _ = w.cata(&["run", "-d", "--name", "idle", "busybox", "sleep", "600"]).ok();
    let _ = w.cata(&["create", "--name", "down", "busybox", "true"]).ok();
    let table = w.cata(&["stats", "--no-stream"]).lines();
    let titles: Vec<_> = table[0].split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    let wanted =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(titles, wanted);
    assert_eq!(table.len(), 3, "{table:?}");
    eventually("it is busy", Duration::from_secs(30), || {
        let format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
        let said = w.cata(&["stats", "--no-stream", "--format", format, "busy"]).text();
        let words: Vec<&str> = said.split(' ').collect();
        let cpu: f64 = words[1].trim_end_matches('%').parse().unwrap();
        let used: f64 = words[2].trim_end_matches("MiB").parse().unwrap_or(0.0);
        assert_eq!((words[0], words[4]), ("busy", "100MiB"), "{said}");
        (cpu > 1.0 && used > 19.0 && words[5] == "1").then_some(())
    });
    let all = w.cata(&["stats", "--no-stream", "-a", "--format", "json", "down"]).json();
    assert_eq!((all["Name"].as_str(), all["CPUPerc"].as_str()), (Some("down"), Some("0.00%")));
    w.cata(&["stats", "--no-stream", "nobody"]).fails(1, &["nobody"]);
    // A stream goes on until its reader has seen enough.
    let cata = cata_tests::command::cata_binary();
    let stream = format!("{} stats --format '{{{{.Name}}}}' idle | head -n 2", cata.display());
    let said = cata_tests::command::Run::new("sh").args(["-c", &stream]).done().text();
    assert_eq!(said, "idle\nidle");
}
