//! Limits: memory, processes, CPU, ulimits, and what is said when they are hit.

use std::path::{Path, PathBuf};

use cata_tests::cgroup;
use cata_tests::command::{PATIENCE, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(stats_show_what_is_used),
        test!(memory_limit_is_set_and_kills).also_in_lab(),
        test!(pids_limit_is_set).also_in_lab(),
        test!(cpu_limits_are_set).also_in_lab(),
        test!(devices_are_limited).also_in_lab(),
        test!(ulimits),
        test!(cgroup_parent).also_in_lab(),
        test!(memory_too_small),
        test!(limits_are_shown),
        test!(limits_are_updated).also_in_lab(),
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
    // They stay, so that all would be there at once; none keeps the command's streams open.
    let crowd = "for i in 1 2 3 4 5 6 7 8; do sleep 600 > /dev/null 2>&1 & done";
    let done = w.cata(&["exec", "pp", "sh", "-c", crowd]);
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

fn devices_are_limited(w: &World) {
    // The node is made inside: only the rule lets it be opened.
    let open = "mknod /tmp/full c 1 7 && mknod /tmp/rtc c 10 200 && head -c 1 /tmp/full >/dev/null; \
        dd if=/tmp/rtc count=0 2>&1";
    let run = |flags: &[&str]| w.cata(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", open]].concat());
    let denied = run(&[]).exits(1).stdout;
    assert!(denied.contains("Operation not permitted"), "{denied}");
    let allowed = run(&["--device-cgroup-rule", "c 10:* rw"]).stdout;
    assert!(!allowed.contains("Operation not permitted"), "{allowed}");
    let disk = std::fs::read_dir("/sys/block").unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        Path::new("/dev").join(&name).exists().then_some(name)
    });
    let disk = disk.expect("a block device");
    let numbers = std::fs::read_to_string(format!("/sys/block/{disk}/dev")).unwrap();
    let (reads, writes) = (format!("/dev/{disk}:1mb"), format!("/dev/{disk}:50"));
    let limits = ["--device-read-bps", &reads, "--device-write-iops", &writes];
    let _ =
        w.cata(&[&["run", "-d", "--name", "dd"], &limits[..], &["busybox", "sleep", "600"]].concat()).ok();
    let group = group(
        w,
        "dd",
        if cgroup::hierarchies().unwrap().iter().any(|h| h.v1.is_some()) { "blkio" } else { "io" },
    );
    let told = ["blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"]
        .map(|file| read(&group, [file, "io.max"]));
    let numbers = numbers.trim();
    assert!(told[0].contains(&format!("{numbers} 1048576")) || told[0].contains("rbps=1048576"), "{told:?}");
    assert!(told[1].contains(&format!("{numbers} 50")) || told[1].contains("wiops=50"), "{told:?}");
    assert_eq!(
        w.field("dd", "{{json .HostConfig.BlkioDeviceReadBps}}"),
        format!("[{{\"Path\":\"/dev/{disk}\",\"Rate\":1048576}}]")
    );
    w.cata(&["run", "--rm", "--device-cgroup-rule", "c 10 rw", "busybox", "true"]).fails(125, &["c 10 rw"]);
    w.cata(&["run", "--rm", "--device-read-bps", "/dev/none:1mb", "busybox", "true"])
        .fails(125, &["/dev/none"]);
    w.cata(&["run", "--rm", "--device-read-bps", "/dev/null:1mb", "busybox", "true"])
        .fails(125, &["/dev/null", "not a block device"]);
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
    // So few that making the container itself needs more.
    let few =
        ["run", "--rm", "--init", "--ulimit", "nofile=5:6", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"];
    assert_eq!(w.cata(&few).lines(), ["5", "6"]);
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
        "0.5",
        "--pids-limit",
        "9",
        "busybox",
        "true",
    ];
    let _ = w.cata(&args).ok();
    let host = &w.inspect("cc")["HostConfig"];
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["NanoCpus"], 500_000_000);
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
    eventually("it is busy", PATIENCE, || {
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

fn limits_are_updated(w: &World) {
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let run = ["run", "-d", "--name", "uu", "--memory", "32m", "--pids-limit", "20", "busybox", "sh", "-c"];
    let _ = w.cata(&[&run[..], &[script]].concat()).ok();
    let memory = |name| read(&group(w, name, "memory"), ["memory.limit_in_bytes", "memory.max"]);
    let holds = || {
        assert_eq!(memory("uu"), (48 << 20).to_string());
        assert_eq!(read(&group(w, "uu", "pids"), ["pids.max", "pids.max"]), "max");
        let quota = read(&group(w, "uu", "cpu"), ["cpu.cfs_quota_us", "cpu.max"]);
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    };
    let args = [
        "update",
        "--memory",
        "48m",
        "--pids-limit",
        "-1",
        "--cpus",
        "0.5",
        "--restart",
        "on-failure:5",
        "uu",
    ];
    assert_eq!(w.cata(&args).text(), "uu");
    holds();
    let host = &w.inspect("uu")["HostConfig"];
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&(48 << 20).into(), &500_000_000.into()));
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    eventually("its trap is set", PATIENCE, || {
        w.cata(&["logs", "uu"]).stdout.contains("ready").then_some(())
    });
    // The process that the policy starts has them too,
    let _ = w.cata(&["exec", "uu", "kill", "-TERM", "1"]).ok();
    eventually("it was started again", PATIENCE, || {
        let state = w.field("uu", "{{.RestartCount}} {{.State.Status}}");
        (state == "1 running").then_some(())
    });
    holds();
    // and so has the next start; a container that does not run is updated as well.
    let _ = w.cata(&["stop", "-t", "0", "uu"]).ok();
    let _ = w.cata(&["update", "--memory", "40m", "uu"]).ok();
    let _ = w.cata(&["start", "uu"]).ok();
    assert_eq!(memory("uu"), (40 << 20).to_string());
    // What is refused changes nothing.
    w.cata(&["update", "--memory", "1m", "uu"]).fails(1, &["6MB"]);
    w.cata(&["update", "uu"]).fails(1, &["one or more flags"]);
    w.cata(&["update", "--cpus", "1", "nobody"]).fails(1, &["No such container: nobody"]);
    assert_eq!(w.inspect("uu")["HostConfig"]["Memory"], 40 << 20);
}
