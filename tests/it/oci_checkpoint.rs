//! `cata-runtime checkpoint` and `restore`, with Debian's CRIU. It does not start on kernels newer than itself: there
//! its reason is what is looked for. In the lab it works.

use std::fs;
use std::process::Command;

use cata_tests::bundle::Bundle;
use cata_tests::command::{PATIENCE, Run, Running, eventually, runtime_binary};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::World;
use serde_json::{Value, json};

use crate::oci_engines::Podman;
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(checkpoint_goes_on).also_in_lab_for(50),
        test!(checkpoint_of_a_terminal).also_in_lab(),
        test!(checkpoint_is_killed).also_in_lab(),
        test!(podman_checkpoints).also_in_lab_for(125),
    ]
}

/// Whether CRIU works on this kernel.
fn criu_works() -> bool {
    Run::new("criu").arg("check").done().code() == 0
}

/// Counts, in a file and on standard output.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; echo $n; \
    sleep 0.05; done";

fn count(b: &Bundle) -> u64 {
    let file = b.rootfs().join("count");
    eventually("its count", PATIENCE, || fs::read_to_string(&file).ok()?.trim().parse().ok())
}

/// It counts on.
fn counts_on(b: &Bundle) -> u64 {
    let before = count(b);
    eventually("a higher count", PATIENCE, || Some(count(b)).filter(|now| *now > before))
}

/// A command of the runtime whose standard output is a pipe to `cat`.
fn piped(b: &Bundle, words: &[&str]) -> Running {
    // Writes the specification.
    let _ = b.command(["features"]).done().ok();
    let (runtime, root) = (runtime_binary(), b.state_dir(""));
    let line = format!(
        "{} --root {} {} --bundle {} c | cat",
        runtime.display(),
        root.display(),
        words.join(" "),
        b.dir.display()
    );
    Run::new("sh").args(["-c", &line]).start()
}

fn pid(b: &Bundle) -> u64 {
    b.state("c")["pid"].as_u64().unwrap()
}

/// What is in force for its first process, as text.
fn confinement(b: &Bundle) -> String {
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", pid(b))).unwrap();
    let wanted = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:"];
    let status = proc("status");
    let status = status.lines().filter(|line| wanted.iter().any(|word| line.starts_with(word)));
    let mounts = proc("mounts");
    // Sizes that the kernel says only of some, and numbers that it gives anew.
    let mut mounts: Vec<String> = mounts
        .lines()
        .map(|line| line.split(' ').skip(1).take(3).collect::<Vec<_>>().join(" "))
        .map(|line| {
            line.split(',').filter(|word| !word.starts_with("nr_inodes")).collect::<Vec<_>>().join(",")
        })
        .collect();
    mounts.sort();
    let mut text: Vec<String> = status.map(str::to_owned).collect();
    text.extend(mounts);
    text.push(proc("limits"));
    text.push(proc("oom_score_adj"));
    text.push(proc("cgroup"));
    text.join("\n")
}

fn counter(w: &World) -> Bundle {
    let mut b = Bundle::new(w, "b");
    b.script(COUNT);
    let data = w.scratch().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "of the host\n").unwrap();
    let mount = json!({"destination": "/data", "type": "bind", "source": data, "options": ["bind", "ro"]});
    b.spec["mounts"].as_array_mut().unwrap().push(mount);
    b.spec["process"]["noNewPrivileges"] = json!(true);
    b.spec["process"]["oomScoreAdj"] = json!(77);
    b.spec["linux"]["resources"]["memory"] = json!({"limit": 100_000_000});
    b.spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    b
}

fn checkpoint_goes_on(w: &World) {
    let mut b = counter(w);
    b.spec["linux"]["resources"]["pids"] = json!({"limit": 50});
    let images = w.scratch().join("images").display().to_string();
    let checkpoint = |more: &[&str]| {
        let mut words = vec!["checkpoint", "--image-path", &images];
        words.extend(more);
        b.runtime([&words[..], &["c"]].concat())
    };
    let first = piped(&b, &["run", "--detach"]);
    let _ = counts_on(&b);
    // Whatever it is that is missing is named, and nothing has happened to the container.
    let none = b.runtime(["--criu", "/nosuch/criu", "checkpoint", "--image-path", &images, "c"]);
    none.fails(1, &["/nosuch/criu", "CRIU", "package criu"]);
    b.runtime(["checkpoint", "--manage-cgroups-mode", "x", "c"]).fails(1, &["`x`"]);
    b.runtime(["restore", "--image-path", "/nosuch", "--bundle", b.dir.to_str().unwrap(), "d"])
        .fails(1, &["/nosuch", "no checkpoint"]);
    assert!(!b.state_dir("d").exists());
    if !criu_works() {
        checkpoint(&[]).fails(1, &["criu failed", "dump.log"]);
        assert_eq!(b.state("c")["status"], "running");
        let _ = counts_on(&b);
        let _ = b.runtime(["delete", "-f", "c"]).ok();
        let _ = first.done(PATIENCE).ok();
        return;
    }
    let before = confinement(&b);
    let _ = checkpoint(&["--leave-running"]).ok();
    assert_eq!(b.state("c")["status"], "running");
    let _ = counts_on(&b);
    // Its memory first, then what has changed since.
    let _ = b.runtime(["checkpoint", "--pre-dump", "--image-path", &format!("{images}/../pre"), "c"]).ok();
    let _ = counts_on(&b);
    let _ = checkpoint(&["--parent-path", "../pre"]).ok();
    assert!(!b.state_dir("c").exists(), "it is gone, as it is on runc");
    let descriptors = fs::read_to_string(format!("{images}/descriptors.json")).unwrap();
    assert!(descriptors.contains("pipe:["), "{descriptors}");
    // The pipe has lost its writer.
    let last: u64 = first.done(PATIENCE).ok().lines().last().unwrap().parse().unwrap();
    let stopped = count(&b);
    assert!(stopped == last || stopped == last + 1, "{stopped} {last}");

    let second = piped(&b, &["restore", "--detach", "--image-path", &images]);
    eventually("the container", PATIENCE, || (b.state("c")["status"] == "running").then_some(()));
    eventually("it goes on", PATIENCE, || Some(count(&b)).filter(|now| *now > stopped));
    let printed = eventually("its output", PATIENCE, || second.stdout().lines().next().map(str::to_owned));
    let printed: u64 = printed.parse().unwrap();
    assert!(printed == last || printed == last + 1, "{printed} after {last}");
    assert_eq!(confinement(&b), before);
    assert_eq!(b.runtime(["exec", "c", "cat", "/data/file"]).text(), "of the host");
    b.runtime(["exec", "c", "touch", "/data/x"]).fails(1, &["Read-only"]);
    let stats = b.runtime(["events", "--stats", "c"]).json();
    assert_eq!(stats["data"]["pids"]["limit"], 50, "{stats}");
    assert!(stats["data"]["memory"]["usage"]["limit"].as_u64().is_some_and(|limit| limit <= 100_000_000));
    b.runtime(["restore", "--image-path", &images, "--bundle", b.dir.to_str().unwrap(), "c"])
        .fails(1, &["already exists"]);
    let _ = b.runtime(["pause", "c"]).ok();
    let _ = b.runtime(["resume", "c"]).ok();
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    let _ = second.done(PATIENCE).ok();
    // What it needs from its bundle and does not get is named.
    b.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/data");
    let _ = b.command(["features"]).done().ok();
    b.runtime(["restore", "-d", "--image-path", &images, "--bundle", b.dir.to_str().unwrap(), "c"])
        .fails(1, &["/data", "the bundle has none"]);
    assert!(!b.state_dir("c").exists());
}

fn checkpoint_of_a_terminal(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.spec["process"]["terminal"] = json!(true);
    b.script("v=nothing; while read line; do echo \"had $v\"; v=$line; done; exit 7");
    let images = w.scratch().join("images");
    let _ = b.command(["features"]).done().ok();
    let on_terminal = |words: &[&str]| {
        let mut command = Command::new(runtime_binary());
        command.arg("--root").arg(b.state_dir("")).args(words).arg("--bundle").arg(&b.dir).arg("c");
        Terminal::run(&command, 24, 80)
    };
    let mut first = on_terminal(&["run"]);
    first.type_in("one\n");
    first.expect("had nothing");
    // Whoever stands in front of it does not keep others from changing it.
    let _ = b.runtime(["pause", "c"]).ok();
    let _ = b.runtime(["resume", "c"]).ok();
    let checkpoint = b.command(["checkpoint", "--image-path"]).arg(&images).arg("c").done();
    if !criu_works() {
        checkpoint.fails(1, &["criu failed"]);
        first.type_in("\u{4}");
        assert_eq!(first.exit_code(), 7);
        return;
    }
    let _ = checkpoint.ok();
    assert_eq!(first.exit_code(), 137);
    let refused = b.command(["restore", "-d", "--image-path"]).arg(&images).arg("--bundle").arg(&b.dir);
    refused.arg("c").done().fails(1, &["without --detach"]);
    let mut second = on_terminal(&["restore", "--image-path", images.to_str().unwrap()]);
    second.type_in("two\n");
    second.expect("had one");
    second.type_in("\u{4}");
    assert_eq!(second.exit_code(), 7);
    assert!(!b.state_dir("c").exists());
}

/// Whenever the runtime is killed, the container runs, or is a checkpoint, or is neither and can be deleted.
fn checkpoint_is_killed(w: &World) {
    if !criu_works() {
        return;
    }
    let b = counter(w);
    let images = w.scratch().join("images").display().to_string();
    let dir = b.dir.to_str().unwrap().to_owned();
    let alone = || {
        eventually("criu's end", PATIENCE, || {
            let left = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"criu\0swrk"))
            });
            (!left).then_some(())
        });
    };
    for moment in [30u64, 400] {
        let _ = b.command(["run", "--detach", "--bundle", &dir, "c"]).done().ok();
        let _ = counts_on(&b);
        let mut killed = b.command(["checkpoint", "--image-path", &images, "c"]).start();
        std::thread::sleep(std::time::Duration::from_millis(moment));
        killed.kill();
        alone();
        let state = b.state("c");
        let status = state.get("status").and_then(Value::as_str).unwrap_or("gone");
        assert!(["running", "stopped", "gone"].contains(&status), "{moment} ms: {status}");
        if status == "running" {
            let _ = counts_on(&b);
        }
        let _ = b.runtime(["delete", "-f", "c"]).ok();
    }
    let _ = b.command(["run", "--detach", "--bundle", &dir, "c"]).done().ok();
    let _ = counts_on(&b);
    let _ = b.runtime(["checkpoint", "--image-path", &images, "c"]).ok();
    for moment in [100u64, 800] {
        let restore = ["restore", "--detach", "--image-path", &images, "--bundle", &dir, "c"];
        let mut killed = b.command(restore).start();
        std::thread::sleep(std::time::Duration::from_millis(moment));
        killed.kill();
        alone();
        let _ = b.runtime(["delete", "-f", "c"]).ok();
        assert!(!b.state_dir("c").exists(), "{moment} ms");
    }
    // And with all that behind it, whole.
    let _ = b.command(["restore", "--detach", "--image-path", &images, "--bundle", &dir, "c"]).done().ok();
    let _ = counts_on(&b);
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}

fn podman_checkpoints(w: &World) {
    let p = Podman::new(w);
    let _ = p.run(&["run", "-d", "-t", "--name", "a", "--network=none", "bb", "sh", "-c", COUNT]).ok();
    let count = || -> Option<u64> { p.run(&["exec", "a", "cat", "/count"]).stdout.trim().parse().ok() };
    let before = eventually("its count", PATIENCE, count);
    if !criu_works() {
        let done = p.run(&["container", "checkpoint", "a"]);
        assert_ne!(done.code(), 0, "{done}");
        assert_eq!(p.run(&["inspect", "--format", "{{.State.Status}}", "a"]).text(), "running");
        let _ = p.run(&["rm", "-f", "-t", "0", "a"]).ok();
        return;
    }
    let _ = p.run(&["container", "checkpoint", "a"]).ok();
    assert_eq!(p.run(&["inspect", "--format", "{{.State.Status}}", "a"]).text(), "exited");
    let _ = p.run(&["container", "restore", "a"]).ok();
    let after = eventually("it goes on", PATIENCE, || count().filter(|now| *now > before));
    assert!(after > before);
    // As an archive, which is another container elsewhere.
    let archive = w.scratch().join("a.tar").display().to_string();
    let _ = p.run(&["container", "checkpoint", "--export", &archive, "a"]).ok();
    let _ = p.run(&["rm", "-f", "-t", "0", "a"]).ok();
    let _ = p.run(&["container", "restore", "--import", &archive]).ok();
    let _ = eventually("it goes on", PATIENCE, || count().filter(|now| *now > after));
    let _ = p.run(&["rm", "-f", "-t", "0", "a"]).ok();
}
