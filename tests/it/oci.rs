//! `cata-runtime` by hand: its commands, what it keeps, hooks, and what is left when it is killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cata_tests::bundle::{Bundle, executable};
use cata_tests::command::{PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::{World, pids};
use serde_json::{Value, json};

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(life_of_a_container).also_in_lab(),
        test!(run_gives_the_programs_code),
        test!(errors_are_told_and_logged),
        test!(without_a_process_it_is_only_created),
        test!(exec_has_its_own_process),
        test!(hooks_run_in_order_with_the_state),
        test!(failing_hooks_end_the_container),
        test!(descriptors_are_preserved),
        test!(limits_change).also_in_lab(),
        test!(killed_at_any_moment).also_in_lab(),
        test!(killed_while_creating).also_in_lab(),
        test!(rights_and_schedules),
        test!(withheld_is_said),
        test!(network_devices_move_in),
        test!(clocks_and_ids_of_its_own),
        test!(user_namespace_of_somebody_else),
        test!(mounts_with_every_option),
        test!(filter_hands_calls_on),
    ]
}

fn wait_for(b: &Bundle, id: &str, status: &str) {
    eventually(status, PATIENCE, || (b.state(id)["status"] == status).then_some(()));
}

fn life_of_a_container(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("trap 'exit 3' TERM; echo started > /said; while :; do sleep 0.05; done");
    let pid_file = w.scratch().join("pid");
    let create = b.command(["create", "--pid-file"]).arg(&pid_file).arg("--bundle").arg(&b.dir).arg("c");
    let _ = create.done().ok();
    let state = b.state("c");
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert!(!b.rootfs().join("said").exists(), "its program must not run yet");
    b.runtime(["delete", "x"]).fails(1, &["does not exist"]);
    b.create("c").fails(1, &["already exists"]);
    let _ = b.runtime(["start", "c"]).ok();
    eventually("its program", PATIENCE, || {
        fs::read_to_string(b.rootfs().join("said")).is_ok_and(|said| said == "started\n").then_some(())
    });
    b.runtime(["start", "c"]).fails(1, &["already running"]);
    assert_eq!(b.runtime(["exec", "c", "cat", "/said"]).text(), "started");
    b.runtime(["delete", "c"]).fails(1, &["not stopped"]);
    let _ = b.runtime(["pause", "c"]).ok();
    assert_eq!(b.state("c")["status"], "paused");
    b.runtime(["exec", "c", "true"]).fails(255, &["paused"]);
    let _ = b.runtime(["resume", "c"]).ok();
    let listed = b.runtime(["list", "--format", "json"]).json();
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!("c"), &json!("running")));
    assert_eq!(b.runtime(["list", "-q"]).text(), "c");
    let listed = b.runtime(["ps", "--format", "json", "c"]).json();
    assert!(listed.as_array().unwrap().contains(&state["pid"]), "{listed}");
    let stats = b.runtime(["events", "--stats", "c"]).json();
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    let _ = b.runtime(["kill", "c"]).ok();
    wait_for(&b, "c", "stopped");
    b.runtime(["kill", "c", "KILL"]).fails(1, &["not running"]);
    b.runtime(["start", "c"]).fails(1, &["stopped"]);
    let _ = b.runtime(["delete", "c"]).ok();
    b.runtime(["state", "c"]).fails(1, &["does not exist"]);
    let _ = b.runtime(["delete", "--force", "c"]).ok();
    assert!(!b.state_dir("c").exists());
    // Never started, and forced while it runs.
    let _ = b.create("d").ok();
    let _ = b.runtime(["delete", "d"]).ok();
    let _ = b.create("e").ok();
    let _ = b.runtime(["start", "e"]).ok();
    let _ = b.runtime(["delete", "-f", "e"]).ok();
}

fn run_gives_the_programs_code(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("echo out; echo err >&2; exit 7");
    let done = b.run("c").exits(7);
    assert_eq!(done.stdout, "out\n");
    b.script("kill -9 $$; sleep 9");
    b.spec["linux"]["namespaces"] = json!([{"type": "mount"}]);
    b.spec.as_object_mut().unwrap().remove("hostname");
    let _ = b.run("c").exits(137);
    b.script("sleep 600");
    // Whoever stands in front of it does not keep others from changing it.
    let front = b.command(["run", "--bundle"]).arg(&b.dir).arg("e").start();
    wait_for(&b, "e", "running");
    let _ = b.runtime(["pause", "e"]).ok();
    let _ = b.runtime(["delete", "-f", "e"]).ok();
    assert_eq!(front.done(PATIENCE).code(), 137);
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("d").done().ok();
    assert_eq!(b.state("d")["status"], "running");
    let _ = b.runtime(["delete", "-f", "d"]).ok();
    assert_eq!(b.runtime(["list", "-q"]).text(), "");
}

fn errors_are_told_and_logged(w: &World) {
    let mut b = Bundle::new(w, "b");
    let log = w.scratch().join("log");
    let logged = |b: &Bundle, words: &[&str]| {
        let _ = fs::remove_file(&log);
        let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        all.extend(words);
        let done = b.runtime(all);
        let line = fs::read_to_string(&log).unwrap_or_default();
        (done, serde_json::from_str::<Value>(line.lines().last().unwrap_or("null")).unwrap())
    };
    let dir = b.dir.to_str().unwrap().to_owned();
    b.spec["process"]["args"] = json!(["nosuch"]);
    let (done, line) = logged(&b, &["create", "--bundle", &dir, "c"]);
    done.fails(1, &["executable file not found in $PATH"]);
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("executable file not found"), "{line}");
    assert!(!b.state_dir("c").exists(), "nothing may remain");
    for (words, text) in [
        (vec!["frob"], "not a command"),
        (vec!["state", "--frob", "c"], "not defined"),
        (vec!["state"], "usage"),
        (vec!["state", "no/good"], "invalid container ID"),
        (vec!["kill", "c", "NOSUCH"], "unknown signal"),
        (vec!["checkpoint", "c"], "does not exist"),
        (vec!["--systemd-cgroup", "create", "--bundle", &dir, "c"], "systemd does not answer"),
    ] {
        b.runtime(words).fails(1, &[text]);
    }
    let refused: [(&str, &str, Value, &str); 7] = [
        ("/linux", "intelRdt", json!({"closID": "x"}), "no resctrl file system is mounted"),
        ("/linux", "intelRdt", json!({"closID": "../x"}), "name of a class"),
        ("/linux", "netDevices", json!({"eth9": {"name": "a"}}), "eth9"),
        ("/linux", "netDevices", json!({"eth9": {"name": "a/b"}}), "not a name of a device"),
        ("/linux", "sysctl", json!({"vm.swappiness": "1"}), "vm.swappiness"),
        ("/process", "cwd", json!("relative"), "not absolute"),
        ("", "ociVersion", json!("2.0.0"), "version 1"),
    ];
    for (at, key, value, text) in refused {
        let before = b.spec.clone();
        b.spec.pointer_mut(at).unwrap()[key] = value;
        b.create("c").fails(1, &[text]);
        assert!(!b.state_dir("c").exists(), "{text}: nothing may remain");
        b.spec = before;
    }
    // What the host does not have is withheld and told; what nobody knows, too.
    b.spec["process"]["args"] = json!(["true"]);
    b.spec["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NOBODY_KNOWS"]);
    let done = b.run("c").ok();
    assert!(done.stderr.contains("CAP_NOBODY_KNOWS"), "{done}");
}

/// The specification wants a process at `start` only.
fn without_a_process_it_is_only_created(w: &World) {
    let mut b = Bundle::new(w, "b");
    let _ = b.spec.as_object_mut().unwrap().remove("process");
    let _ = b.create("c").ok();
    assert_eq!(b.state("c")["status"], "created");
    b.runtime(["start", "c"]).fails(1, &["no `process`"]);
    b.runtime(["exec", "c", "true"]).fails(255, &["no process"]);
    let process = w.file(
        "process.json",
        json!({"args": ["cat", "/proc/1/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}})
        .to_string(),
    );
    let waiting = b.command(["exec", "--process"]).arg(&process).arg("c").done().ok().text();
    assert!(waiting.contains("CapBnd:\t0000000000000000"), "{waiting}");
    assert_eq!(b.state("c")["status"], "created");
    let _ = b.runtime(["delete", "c"]).ok();
    b.run("c").fails(1, &["no `process`"]);
    assert!(!b.state_dir("c").exists());
}

fn exec_has_its_own_process(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("c").done().ok();
    let sh = |words: &[&str], script: &str| {
        let mut all = vec!["exec"];
        all.extend(words);
        all.extend(["c", "sh", "-c", script]);
        b.runtime(all)
    };
    assert_eq!(sh(&[], "exit 9").code(), 9);
    assert_eq!(sh(&["--cwd", "/tmp", "-e", "A=b"], "pwd; echo $A").text(), "/tmp\nb");
    // The container has one of that name already.
    let environment = b.runtime(["exec", "-e", "PATH=/bin:/x", "c", "cat", "/proc/self/environ"]).text();
    assert_eq!(
        environment.split('\0').filter(|v| v.starts_with("PATH=")).collect::<Vec<_>>(),
        ["PATH=/bin:/x"]
    );
    assert_eq!(sh(&["-u", "5:6", "-g", "7"], "id -u; id -g; id -G").text(), "5\n6\n6 7");
    let caps = sh(&["--cap", "CAP_SYS_CHROOT"], "grep CapEff /proc/self/status").text();
    assert_eq!(u64::from_str_radix(caps.trim_start_matches("CapEff:\t"), 16).unwrap() & (1 << 18), 1 << 18);
    b.runtime(["exec", "c", "nosuch"]).fails(255, &["executable file not found in $PATH"]);
    b.runtime(["exec", "c"]).fails(255, &["args"]);
    let process = w.file(
        "process.json",
        json!({"args": ["sh", "-c", "id -u; echo $X; pwd"], "cwd": "/etc", "env": ["PATH=/bin", "X=y"],
               "user": {"uid": 3, "gid": 4}})
        .to_string(),
    );
    assert_eq!(b.command(["exec", "--process"]).arg(&process).arg("c").done().text(), "3\ny\n/etc");
    let pid_file = w.scratch().join("pid");
    let _ =
        b.command(["exec", "--detach", "--pid-file"]).arg(&pid_file).args(["c", "sleep", "77"]).done().ok();
    let pid = fs::read_to_string(&pid_file).unwrap();
    // The kernel tells the new arguments a moment after `execve` has succeeded.
    eventually("it is what was asked for", PATIENCE, || {
        (fs::read(Path::new("/proc").join(&pid).join("cmdline")).unwrap() == b"sleep\x0077\0").then_some(())
    });
    assert_eq!(sh(&["--tty"], "tty").text().trim(), "/dev/pts/0");
    let _ = b.runtime(["kill", "--all", "c", "KILL"]).ok();
    wait_for(&b, "c", "stopped");
    let _ = b.runtime(["delete", "c"]).ok();
}

/// Adds a hook of each kind that writes its kind, its root's marker and the state it gets.
fn record_hooks(b: &mut Bundle, file: &Path) {
    let recorder = b.dir.join("recorder");
    executable(
        &recorder,
        &format!(
            "#!/bin/sh\nread state\necho \"$1 $(readlink /proc/self/ns/mnt) $state\" >> {}\n",
            file.display()
        ),
    );
    b.executable("recorder", "#!/bin/sh\nread state\necho \"$1 $(pwd) $state\" >> /inside\n");
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b.spec["hooks"][kind] =
            json!([{"path": recorder, "args": ["recorder", kind], "env": ["PATH=/bin:/usr/bin"]}]);
    }
    b.spec["hooks"]["startContainer"] = json!([{"path": "/recorder", "args": ["recorder", "startContainer"], "env": ["PATH=/bin"], "timeout": 30}]);
}

fn hooks_run_in_order_with_the_state(w: &World) {
    let mut b = Bundle::new(w, "b");
    let file = w.scratch().join("hooks");
    record_hooks(&mut b, &file);
    b.spec["annotations"] = json!({"a": "b"});
    b.script("cp /inside /inside.then; sleep 600");
    let lines = || -> Vec<(String, String, Value)> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap().to_owned();
            (word(), word(), serde_json::from_str(&word()).unwrap())
        };
        text.lines().map(line).collect()
    };
    let _ = b.create("c").ok();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    let created = lines();
    let kinds: Vec<&str> = created.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["prestart", "createRuntime", "createContainer"]);
    let pid = b.state("c")["pid"].clone();
    for (kind, namespace, state) in &created {
        let status = if kind == "prestart" { "created" } else { "creating" };
        assert_eq!((&state["status"], &state["pid"]), (&json!(status), &pid), "{kind}");
        assert_eq!((&state["id"], &state["annotations"]["a"]), (&json!("c"), &json!("b")), "{kind}");
        assert_eq!(*namespace == own, kind != "createContainer", "{kind} in {namespace}");
    }
    let _ = b.runtime(["start", "c"]).ok();
    let (kind, namespace, state) = lines().pop().unwrap();
    assert_eq!((kind.as_str(), namespace == own, &state["status"]), ("poststart", true, &json!("running")));
    let inside = eventually("the program", PATIENCE, || {
        fs::read_to_string(b.rootfs().join("inside.then")).ok().filter(|text| text.ends_with('\n'))
    });
    let state: Value = serde_json::from_str(inside.splitn(3, ' ').nth(2).unwrap()).unwrap();
    assert_eq!((&state["status"], &state["pid"]), (&json!("created"), &pid), "{inside}");
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    let (kind, _, state) = lines().pop().unwrap();
    assert_eq!((kind.as_str(), &state["status"], state.get("pid")), ("poststop", &json!("stopped"), None));
    assert_eq!(lines().len(), 5);
}

fn failing_hooks_end_the_container(w: &World) {
    let mut b = Bundle::new(w, "b");
    let file = w.scratch().join("hooks");
    b.script("sleep 600");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        record_hooks(&mut b, &file);
        b.spec["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo so sad; exit 3"]}]);
        b.create("c").fails(1, &[kind, "so sad"]);
        assert!(!b.state_dir("c").exists(), "{kind}");
        let last = fs::read_to_string(&file).unwrap();
        assert!(last.lines().last().unwrap().starts_with("poststop"), "{kind}: {last}");
    }
    record_hooks(&mut b, &file);
    b.spec["hooks"]["startContainer"] = json!([{"path": "/bin/false"}]);
    let _ = b.create("c").ok();
    b.runtime(["start", "c"]).fails(1, &["startContainer", "/bin/false"]);
    wait_for(&b, "c", "stopped");
    let _ = b.runtime(["delete", "c"]).ok();
    record_hooks(&mut b, &file);
    b.spec["hooks"]["prestart"] = json!([{"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}]);
    b.create("c").fails(1, &["prestart", "within 1 s"]);
}

fn descriptors_are_preserved(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("ls /proc/self/fd; cat <&3");
    let file = w.file("open", "what was open\n");
    let runtime = cata_tests::command::runtime_binary();
    let hooks = w.scratch().join("hooks");
    let list = format!("ls /proc/self/fd >> {}", hooks.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", list], "env": ["PATH=/bin:/usr/bin"]}]);
    b.spec["hooks"] = json!({"createRuntime": hook, "poststop": hook});
    let run_with = |variable: &str, words: &str| {
        let _ = b.command(["features"]).done().ok();
        let line = format!(
            "exec 3<{} 4<{} 7</dev/null; {variable} exec {} --root {} run {words} --bundle {} c",
            file.display(),
            file.display(),
            runtime.display(),
            b.state_dir("").display(),
            b.dir.display()
        );
        Run::new("/bin/bash").args(["-c", &line]).done()
    };
    let run = |words: &str| run_with("", words);
    // `ls` itself opens one more.
    let kept = run("--preserve-fds 2").ok().lines();
    assert_eq!(kept, ["0", "1", "2", "3", "4", "5", "what was open"]);
    // What is the container's is not its hooks'.
    let seen = fs::read_to_string(&hooks).unwrap();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "0", "1", "2", "3"]);
    // By systemd's protocol.
    let listening = run_with("LISTEN_FDS=1", "").ok().lines();
    assert_eq!(listening, ["0", "1", "2", "3", "4", "what was open"]);
    b.script("ls /proc/self/fd");
    let none = {
        let _ = b.command(["features"]).done().ok();
        let line = format!(
            "exec 3<{} 7</dev/null; exec {} --root {} run --bundle {} c",
            file.display(),
            runtime.display(),
            b.state_dir("").display(),
            b.dir.display()
        );
        Run::new("/bin/bash").args(["-c", &line]).done().ok().lines()
    };
    assert_eq!(none, ["0", "1", "2", "3"]);
}

fn limits_change(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    b.spec["linux"]["resources"]["memory"] = json!({"limit": 50_000_000});
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("c").done().ok();
    let limit = || {
        let stats = b.runtime(["events", "--stats", "c"]).json();
        (stats["data"]["memory"]["usage"]["limit"].as_u64(), stats["data"]["pids"]["limit"].as_u64())
    };
    let page = |bytes: u64| Some(bytes / 4096 * 4096);
    assert_eq!(limit().0, page(50_000_000));
    let _ = b.runtime(["update", "--memory", "60000000", "--pids-limit", "33", "c"]).ok();
    assert_eq!(limit(), (page(60_000_000), Some(33)));
    let update = b.command(["update", "--resources", "-", "c"]).input(r#"{"memory": {"limit": 70000000}}"#);
    let _ = update.done().ok();
    assert_eq!(limit(), (page(70_000_000), Some(33)));
    b.runtime(["update", "--memory", "much", "c"]).fails(1, &["not a number"]);
    // No limit, however it is said.
    for none in ["0", "-1"] {
        let _ = b.runtime(["update", "--pids-limit", none, "c"]).ok();
        assert_eq!(limit().1, Some(0));
    }
    let record: Value =
        serde_json::from_slice(&fs::read(b.state_dir("c").join("state.json")).unwrap()).unwrap();
    for directory in record["cgroup"]["directories"].as_array().unwrap() {
        let of = |key: &str| directory[key].as_str().unwrap();
        fs::create_dir(Path::new(of("mount")).join(of("path")).join("below")).unwrap();
    }
    let inside = |wanted: &str| b.runtime(["exec", "--cgroup", wanted, "c", "cat", "/proc/self/cgroup"]);
    let groups = inside("/below").ok().stdout;
    assert!(groups.lines().any(|line| line.ends_with(":/below")), "{groups}");
    let groups = inside("memory:below").ok().stdout;
    let of_memory = |line: &&str| line.contains(":memory:") || line.starts_with("0::");
    assert!(groups.lines().filter(of_memory).any(|line| line.ends_with(":/below")), "{groups}");
    inside("nosuch").fails(255, &["does not exist"]);
    inside("../c").fails(255, &["`..`"]);
    inside("rdma:below").fails(255, &["rdma"]);
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}

/// Moments from before anything happened to after all of it, in milliseconds.
const MOMENTS: [u64; 12] = [0, 1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 90];

/// Nothing of container `id` is left: no directory, no cgroup, no process but ours.
fn assert_gone(w: &World, b: &Bundle, id: &str) {
    assert!(!b.state_dir(id).exists());
    let mut left = Vec::new();
    eventually("nothing is left", PATIENCE, || {
        left = pids().into_iter().filter(|pid| *pid != 1 && *pid != std::process::id()).collect();
        left.is_empty().then_some(())
    });
    eventually("no cgroup is left", PATIENCE, || {
        let hierarchies = cata_tests::cgroup::hierarchies().unwrap();
        (!hierarchies.iter().any(|hierarchy| hierarchy.mount.join(id).exists())).then_some(())
    });
    let place = w.scratch().join("b").to_string_lossy().into_owned();
    eventually("no mount is left", PATIENCE, || {
        (!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&place)).then_some(())
    });
}

fn killed_at_any_moment(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    let dir = b.dir.to_str().unwrap().to_owned();
    for moment in MOMENTS {
        let mut create = b.command(["create", "--bundle", &dir, "victim"]).start();
        std::thread::sleep(Duration::from_millis(moment));
        create.kill();
        // It is there and whole, or not there at all, as soon as what was being made has followed its maker.
        let status = eventually(&format!("it is made or not, after {moment} ms"), PATIENCE, || {
            let status = b.state("victim")["status"].as_str().map(str::to_owned);
            matches!(status.as_deref(), None | Some("created" | "stopped")).then_some(status)
        });
        if status.as_deref() == Some("created") {
            let mut start = b.command(["start", "victim"]).start();
            std::thread::sleep(Duration::from_millis(moment / 2));
            start.kill();
        }
        let mut delete = b.command(["delete", "-f", "victim"]).start();
        std::thread::sleep(Duration::from_millis(moment / 2));
        delete.kill();
        let _ = b.runtime(["delete", "-f", "victim"]).ok();
        assert_gone(w, &b, "victim");
        let _ = b.create("victim").ok();
        let _ = b.runtime(["delete", "victim"]).ok();
    }
}

/// The hook that waits, whether or not its shell has become `sleep` by now.
fn is_hook(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.starts_with(b"sleep\0") || command.starts_with(b"sh\0")
}

fn killed_while_creating(w: &World) {
    let mut b = Bundle::new(w, "b");
    let dir = b.dir.to_str().unwrap().to_owned();
    let reached = w.scratch().join("reached");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("touch {}; exec sleep 600", reached.display())],
        "env": ["PATH=/bin:/usr/bin"]}]);
    for kind in ["createRuntime", "createContainer"] {
        b.spec["hooks"] = json!({kind: hook});
        let _ = fs::remove_file(&reached);
        let mut create = b.command(["create", "--bundle", &dir, "victim"]).start();
        eventually("the hook", PATIENCE, || reached.exists().then_some(()));
        assert_eq!(b.state("victim")["status"], "creating");
        create.kill();
        wait_for(&b, "victim", "stopped");
        b.create("victim").fails(1, &["already exists"]);
        let _ = b.runtime(["delete", "-f", "victim"]).ok();
        eventually("the hook is gone", PATIENCE, || {
            let hooks: Vec<u32> = pids().into_iter().filter(|pid| is_hook(*pid)).collect();
            for pid in &hooks {
                // It is the host's program: whoever killed its runtime may kill it.
                let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            hooks.is_empty().then_some(())
        });
        assert_gone(w, &b, "victim");
    }
}

fn rights_and_schedules(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script(
        "grep -E 'CapAmb|NoNewPrivs' /proc/self/status; umask; ulimit -n; cat /proc/self/oom_score_adj; \
         cut -f19,41 -d' ' /proc/$$/stat; ionice -p $$; uname -m; hostname; cat /proc/sys/kernel/domainname",
    );
    b.spec["process"]["capabilities"] = {
        let set = json!(["CAP_KILL"]);
        json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set})
    };
    b.spec["process"]["user"] = json!({"uid": 5, "gid": 6, "umask": 0o27});
    b.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    b.spec["process"]["oomScoreAdj"] = json!(100);
    b.spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    b.spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    b.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    b.spec["hostname"] = json!("my-host");
    b.spec["domainname"] = json!("my-domain");
    let text = b.run("c").ok().text();
    for expected in [
        "CapAmb:\t0000000000000020",
        "NoNewPrivs:\t1",
        "0027",
        "77",
        "100",
        "5 3",
        "idle",
        "my-host",
        "my-domain",
    ] {
        assert!(text.lines().any(|line| line.contains(expected)), "{expected} in {text}");
    }
    if cfg!(target_arch = "x86_64") {
        assert!(text.lines().any(|line| line == "i686"), "{text}");
        // Further processes are told the same.
        let args = b.spec["process"]["args"].take();
        b.script("sleep 600");
        let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg("long").done().ok();
        assert_eq!(b.runtime(["exec", "long", "uname", "-m"]).text(), "i686");
        let _ = b.runtime(["delete", "-f", "long"]).ok();
        b.spec["process"]["args"] = args;
    }
    b.spec["process"]["apparmorProfile"] = json!("no-such-profile");
    b.run("c").fails(1, &["no-such-profile"]);
    b.spec["process"]["apparmorProfile"] = json!("");
    b.spec["process"]["selinuxLabel"] = json!("a:b:c:d");
    b.run("c").fails(1, &["a:b:c:d"]);
    b.spec["process"]["selinuxLabel"] = json!("");
    // What cannot be had is said, where nothing depends on it.
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    if !selinux {
        b.spec["linux"]["mountLabel"] = json!("a:b:c:d");
        assert!(b.run("c").ok().stderr.contains("mount label a:b:c:d"));
    }
    let features = b.runtime(["features"]).json();
    assert_eq!(features["linux"]["selinux"]["enabled"], selinux);
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    assert_eq!(features["linux"]["apparmor"]["enabled"], apparmor.starts_with('Y'));
}

/// On a host with fewer rights and lower limits: what there is is given, the rest is named, and it runs.
fn withheld_is_said(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script(
        "grep -E 'CapEff|CapBnd' /proc/self/status; ulimit -Hn; cat /proc/self/oom_score_adj; sleep 600",
    );
    let asked = json!(["CAP_KILL", "CAP_NET_RAW", "CAP_SYS_RESOURCE"]);
    b.spec["process"]["capabilities"] = json!({"bounding": asked, "effective": asked, "permitted": asked});
    b.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 4000, "hard": 4000}]);
    b.spec["process"]["oomScoreAdj"] = json!(-500);
    // Writes the specification.
    let _ = b.command(["features"]).done().ok();
    let log = w.scratch().join("log");
    let poor = |words: &[&str]| {
        let run = Run::new("setpriv").args(["--bounding-set", "-net_raw,-sys_resource"]);
        let run = run.args(["prlimit", "--nofile=500:500"]).arg(cata_tests::command::runtime_binary());
        run.arg("--root")
            .arg(b.state_dir(""))
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(words)
    };
    let front = poor(&["run", "--bundle", b.dir.to_str().unwrap(), "c"]).start();
    let kill = format!("{:016x}", 1 << 5);
    let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let expected = format!("CapEff:\t{kill}\nCapBnd:\t{kill}\n500\n{score}");
    eventually("what it has", PATIENCE, || (front.stdout() == expected).then_some(()));
    let warnings = || -> Vec<String> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["level"] == "warning");
        lines.map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
    };
    for what in ["CAP_NET_RAW", "CAP_SYS_RESOURCE", "RLIMIT_NOFILE 4000:4000", "oom_score_adj -500"] {
        eventually(what, PATIENCE, || warnings().iter().any(|line| line.contains(what)).then_some(()));
    }
    // Of further processes too.
    fs::remove_file(&log).unwrap();
    let exec = poor(&["exec", "--cap", "CAP_NET_RAW", "c", "grep", "CapEff", "/proc/self/status"]).done();
    assert_eq!(exec.text(), format!("CapEff:\t{kill}"));
    assert!(warnings().iter().any(|line| line.contains("CAP_NET_RAW")), "{:?}", warnings());
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    let _ = front.done(PATIENCE);
}

fn network_devices_move_in(w: &World) {
    let ip = |words: &str| {
        let _ = Run::new("ip").args(words.split(' ')).done().ok();
    };
    let mut b = Bundle::new(w, "b");
    for (device, peer) in [("eth8", "peer8"), ("eth9", "peer9")] {
        ip(&format!("link add {device} type veth peer name {peer}"));
    }
    ip("addr add 10.9.8.7/24 dev eth9");
    ip("addr add fd00:9::7/64 dev eth9 nodad");
    ip("link set eth9 mtu 1400 up");
    b.spec["linux"]["netDevices"] = json!({"eth9": {"name": "net0"}, "eth8": {}});
    b.script("ip addr show net0; ip link show eth8");
    let shown = b.run("c").ok().stdout;
    for part in ["mtu 1400", "inet 10.9.8.7/24", "inet6 fd00:9::7/64", "eth8"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(shown.lines().filter(|line| line.contains("UP")).count(), 2, "{shown}");
    // Its pair went with the container's network; this one's name is taken there.
    eventually("both pairs are gone", PATIENCE, || {
        (!Path::new("/sys/class/net/peer9").exists() && !Path::new("/sys/class/net/peer8").exists())
            .then_some(())
    });
    ip("link add eth9 type veth peer name peer9");
    b.spec["linux"]["netDevices"] = json!({"eth9": {"name": "lo"}});
    b.run("c").fails(1, &["network device", "eth9"]);
    b.spec["linux"]["netDevices"] = json!({"eth9": {}});
    b.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "network");
    b.run("c").fails(1, &["eth9", "network namespace"]);
    ip("link del eth9");
}

fn clocks_and_ids_of_its_own(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script(
        "cut -d. -f1 /proc/uptime; cat /proc/self/uid_map; readlink /proc/self/ns/time; readlink /proc/self/ns/user",
    );
    let spaces = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
    spaces.extend([json!({"type": "time"}), json!({"type": "user"})]);
    b.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    b.spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    b.spec["linux"]["gidMappings"] = b.spec["linux"]["uidMappings"].clone();
    let lines = b.run("c").ok().lines();
    assert!(lines[0].parse::<u64>().unwrap() >= 1_000_000_000, "{lines:?}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_ne!(lines[2], fs::read_link("/proc/self/ns/time").unwrap().to_string_lossy());
    assert_ne!(lines[3], fs::read_link("/proc/self/ns/user").unwrap().to_string_lossy());
}

fn user_namespace_of_somebody_else(w: &World) {
    let mut b = Bundle::new(w, "b");
    let holder = Run::new("unshare").args(["--user", "sleep", "600"]).start();
    let pid = holder.pid();
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let path = format!("/proc/{pid}/ns/user");
    let theirs = eventually("a user namespace", PATIENCE, || {
        fs::read_link(&path).ok().filter(|theirs| *theirs != own)
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").unwrap();
    }
    b.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
    b.script("readlink /proc/self/ns/user; id -u; hostname; sleep 600 & exit 4");
    let done = b.run("c").exits(4);
    assert_eq!(done.stdout, format!("{}\n0\ncata\n", theirs.display()));
    drop(holder);
}

fn mounts_with_every_option(w: &World) {
    let mut b = Bundle::new(w, "b");
    let source = w.scratch().join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("mine"), "x").unwrap();
    rustix::fs::chown(source.join("mine"), Some(rustix::fs::Uid::from_raw(1000)), None).unwrap();
    fs::create_dir_all(b.rootfs().join("full")).unwrap();
    fs::write(b.rootfs().join("full/file"), "kept").unwrap();
    let mounts = b.spec["mounts"].as_array_mut().unwrap();
    mounts.extend([
        json!({"destination": "/mapped", "type": "bind", "source": source, "options": ["bind", "idmap"],
               "uidMappings": [{"containerID": 1000, "hostID": 5, "size": 1}],
               "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}),
        json!({"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=700"]}),
        json!({"destination": "/quiet", "type": "bind", "source": source,
               "options": ["rbind", "rro", "nosuid", "noexec", "nodev", "nosymfollow", "noatime"]}),
        json!({"destination": "/relative", "type": "bind", "source": "rootfs/full", "options": ["bind", "ro"]}),
        json!({"destination": "/words", "type": "tmpfs", "source": "tmpfs", "options": ["nostrictatime",
               "iversion", "mand", "lazytime", "sync", "dirsync", "loud", "nosymfollow", "unbindable"]}),
        json!({"destination": "/below", "type": "bind", "source": source, "options": ["rbind", "rnostrictatime"]}),
    ]);
    b.script(
        "stat -c %u /mapped/mine; cat /full/file; touch /full/new && echo ok; touch /quiet/x 2>&1; \
              grep -E ' /(quiet|words) ' /proc/self/mountinfo; cat /relative/file",
    );
    let done = b.run("c");
    let text = done.ok().text();
    let words = "relatime,nosymfollow unbindable - tmpfs tmpfs rw,sync,dirsync,mand,lazytime";
    for expected in ["5\n", "kept", "ok", "Read-only", "ro,nosuid,nodev,noexec,noatime", words] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!b.rootfs().join("full/new").exists());
}

fn filter_hands_calls_on(w: &World) {
    use std::io::Read as _;
    let mut b = Bundle::new(w, "b");
    let socket = w.scratch().join("notify");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    b.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "meta",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 123},
        ],
    });
    b.script("rmdir /tmp 2>&1; mkdir /tmp/x 2>&1");
    let dir = b.dir.to_str().unwrap().to_owned();
    let _ = b.command(["create", "--bundle", &dir, "c"]).done().ok();
    let pid = b.state("c")["pid"].clone();
    listener.set_nonblocking(true).unwrap();
    let start = b.command(["start", "c"]).start();
    let (mut connection, _) = eventually("the listener is told", PATIENCE, || listener.accept().ok());
    connection.set_nonblocking(false).unwrap();
    let _ = start.done(PATIENCE).ok();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("meta")), "{told}");
    assert_eq!((&told["state"]["id"], &told["pid"]), (&json!("c"), &pid), "{told}");
    // Nobody took the descriptor that came with it: the call fails, and the container ends.
    wait_for(&b, "c", "stopped");
    let _ = b.runtime(["delete", "c"]).ok();
    b.spec["linux"]["seccomp"].as_object_mut().unwrap().remove("listenerPath");
    b.run("c").fails(1, &["listenerPath"]);
}
