//! Other people's engines on `cata-runtime`.

use std::path::PathBuf;

use cata_tests::bundle::Bundle;
use cata_tests::command::{Done, PATIENCE, Run, eventually, runtime_binary};
use cata_tests::daemon::Daemon;
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(podman_containers),
        test!(podman_pods),
        test!(podman_user_namespace),
        test!(containerd_tasks),
        test!(dockerd_containers),
    ]
}

/// podman with everything of its own in the world.
pub(crate) struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// With an image `bb` of busybox.
    pub(crate) fn new(w: &World) -> Self {
        let this = Self { dir: w.scratch().join("podman") };
        let bundle = Bundle::new(w, "image");
        let tar = w.scratch().join("image.tar");
        let _ = Run::new("tar").arg("-C").arg(bundle.rootfs()).arg("-cf").arg(&tar).arg(".").done().ok();
        let _ = this.run(&["import", tar.to_str().unwrap(), "bb"]).ok();
        this
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        Run::new("podman")
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg("/run/podman")
            .arg("--tmpdir")
            .arg("/run/podman.tmp")
            .args(["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs"])
            .arg("--runtime")
            .arg(runtime_binary())
            .args(words)
            .done()
    }

    /// `run --rm` without a network.
    fn once(&self, options: &[&str], script: &str) -> Done {
        let mut words = vec!["run", "--rm", "--network=none"];
        words.extend(options);
        words.extend(["bb", "sh", "-c", script]);
        self.run(&words)
    }
}

/// Whoever has seen its output may send the signal.
const LOOP: &str = "trap 'exit 5' TERM; echo out; while :; do sleep 0.05; done";

fn podman_containers(w: &World) {
    let p = Podman::new(w);
    assert_eq!(p.once(&[], "echo hello").text(), "hello");
    let _ = p.once(&[], "exit 7").exits(7);
    p.run(&["run", "--rm", "--network=none", "bb", "nosuch"]).fails(127, &["executable file not found"]);
    let _ = p.run(&["run", "-d", "--name", "a", "--network=none", "bb", "sh", "-c", LOOP]).ok();
    assert_eq!(p.run(&["exec", "a", "sh", "-c", "echo inside; exit 3"]).exits(3).stdout, "inside\n");
    p.run(&["exec", "a", "nosuch"]).fails(127, &["executable file not found"]);
    assert_eq!(p.run(&["exec", "-t", "a", "tty"]).text(), "/dev/pts/0");
    eventually("its output", PATIENCE, || (p.run(&["logs", "a"]).text() == "out").then_some(()));
    let _ = p.run(&["pause", "a"]).ok();
    assert_eq!(p.run(&["inspect", "--format", "{{.State.Status}}", "a"]).text(), "paused");
    let _ = p.run(&["unpause", "a"]).ok();
    assert!(p.run(&["top", "a"]).text().contains("trap"));
    let _ = p.run(&["stop", "-t", "50", "a"]).ok();
    assert_eq!(p.run(&["inspect", "--format", "{{.State.ExitCode}}", "a"]).text(), "5");
    let _ = p.run(&["start", "a"]).ok();
    let _ = p.run(&["kill", "a"]).ok();
    assert_eq!(p.run(&["wait", "a"]).text(), "137");
    let _ = p.run(&["rm", "-f", "a"]).ok();
    let text =
        p.once(&["--read-only", "--tmpfs", "/x", "--user", "5:6"], "touch /x/a; touch /b 2>&1; id -u; id -g");
    assert_eq!(text.text(), "touch: /b: Read-only file system\n5\n6");
    let limits = ["--memory", "50m", "--pids-limit", "20", "--cpus", "0.5", "--cap-add", "all"];
    let _ = p
        .once(
            &limits,
            "test $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
        2>/dev/null) = 52428800",
        )
        .ok();
    assert!(p.once(&["--privileged"], "ls /dev").ok().lines().len() > 20);
}

fn podman_pods(w: &World) {
    let p = Podman::new(w);
    let infra = ["--infra-image", "bb", "--infra-command", "/bin/sleep 600"];
    let mut create = vec!["pod", "create", "--name", "p", "--network=none"];
    create.extend(infra);
    let _ = p.run(&create).ok();
    let _ = p.run(&["run", "-d", "--pod", "p", "--name", "b", "bb", "sh", "-c", LOOP]).ok();
    let net =
        |name: &str, kind: &str| p.run(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]).text();
    let _ = p.run(&["run", "-d", "--pod", "p", "--name", "c", "bb", "sh", "-c", LOOP]).ok();
    assert_eq!(net("b", "net"), net("c", "net"));
    assert_eq!(net("b", "uts"), net("c", "uts"));
    assert_eq!(net("b", "ipc"), net("c", "ipc"));
    assert_ne!(net("b", "mnt"), net("c", "mnt"));
    let _ = p.run(&["pod", "rm", "-f", "-t", "0", "p"]).ok();
    assert_eq!(p.run(&["ps", "-aq"]).text(), "");
}

fn podman_user_namespace(w: &World) {
    let p = Podman::new(w);
    let done =
        p.once(&["--uidmap", "0:100000:65536"], "cat /proc/self/uid_map; id -u; touch /x && stat -c %u /x");
    let text = done.text();
    assert!(text.starts_with("0     100000      65536"), "{text}");
    assert!(text.ends_with("0\n0"), "{text}");
}

fn containerd_tasks(w: &World) {
    let archive = w.scratch().join("bb.tar");
    let _ = Podman::new(w).run(&["save", "-q", "-o", archive.to_str().unwrap(), "bb"]).ok();
    let configuration = w.file(
        "containerd.toml",
        format!(
            "version = 2\nroot = \"{}\"\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"/run/containerd.sock\"\n",
            w.scratch().join("containerd").display()
        ),
    );
    let run = Run::new("containerd").arg("--config").arg(&configuration);
    let daemon = Daemon::start(run, "/run/containerd.sock", &["containerd-shim"]);
    let ctr = |words: &[&str]| Run::new("ctr").args(["--address", "/run/containerd.sock"]).args(words).done();
    let _ = ctr(&["image", "import", "--snapshotter", "native", archive.to_str().unwrap()]).ok();
    let program = runtime_binary();
    let run = |options: &[&str], id: &str, words: &[&str]| {
        let mut all = vec!["run", "--snapshotter", "native", "--runc-binary", program.to_str().unwrap()];
        all.extend(options);
        all.extend(["localhost/bb:latest", id]);
        all.extend(words);
        ctr(&all)
    };
    assert_eq!(run(&["--rm"], "a", &["echo", "hello"]).text(), "hello");
    let _ = run(&["--rm"], "b", &["sh", "-c", "exit 6"]).exits(6);
    let _ = run(&["--detach"], "c", &["sleep", "600"]).ok();
    assert_eq!(
        ctr(&["task", "exec", "--exec-id", "e", "c", "sh", "-c", "echo in; exit 4"]).exits(4).stdout,
        "in\n"
    );
    let status = || ctr(&["task", "ls"]).text();
    assert!(status().contains("RUNNING"));
    let _ = ctr(&["task", "pause", "c"]).ok();
    assert!(status().contains("PAUSED"));
    let _ = ctr(&["task", "resume", "c"]).ok();
    let _ = ctr(&["task", "kill", "--signal", "KILL", "c"]).ok();
    eventually("the end", PATIENCE, || status().contains("STOPPED").then_some(()));
    let _ = ctr(&["task", "rm", "c"]);
    let _ = ctr(&["container", "rm", "c"]).ok();
    drop(daemon);
}

fn dockerd_containers(w: &World) {
    let bundle = Bundle::new(w, "image");
    let tar = w.scratch().join("image.tar");
    let _ = Run::new("tar").arg("-C").arg(bundle.rootfs()).arg("-cf").arg(&tar).arg(".").done().ok();
    let run = Run::new("dockerd")
        .args(["--host", "unix:///run/d.sock", "--exec-root", "/run/d", "--pidfile", "/run/d.pid"])
        .args(["--iptables=false", "--bridge=none", "--storage-driver=vfs", "--data-root"])
        .arg(w.scratch().join("docker"))
        .arg("--add-runtime")
        .arg(format!("cata={}", runtime_binary().display()))
        .arg("--default-runtime=cata");
    let daemon = Daemon::start(run, "/run/d.sock", &["containerd-shim", "containerd"]);
    let docker =
        |words: &[&str]| Run::new("docker").args(["--host", "unix:///run/d.sock"]).args(words).done();
    let _ = docker(&["import", tar.to_str().unwrap(), "bb"]).ok();
    assert_eq!(docker(&["run", "--rm", "bb", "echo", "hello"]).text(), "hello");
    let _ = docker(&["run", "--rm", "bb", "sh", "-c", "exit 7"]).exits(7);
    docker(&["run", "--rm", "bb", "nosuch"]).fails(127, &["executable file not found"]);
    let _ = docker(&["run", "-d", "--name", "box", "--memory", "50m", "bb", "sh", "-c", LOOP]).ok();
    assert_eq!(docker(&["exec", "box", "sh", "-c", "echo inside; exit 3"]).exits(3).stdout, "inside\n");
    eventually("its output", PATIENCE, || (docker(&["logs", "box"]).text() == "out").then_some(()));
    let _ = docker(&["update", "--memory", "60m", "--memory-swap", "60m", "box"]).ok();
    let _ = docker(&["pause", "box"]).ok();
    let _ = docker(&["unpause", "box"]).ok();
    let _ = docker(&["stop", "-t", "50", "box"]).ok();
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", "box"]).text(), "5");
    let _ = docker(&["rm", "-f", "box"]).ok();
    drop(daemon);
}
