//! Somebody who is not root: `cata-runtime` by itself and under podman, and `cata`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use cata_tests::bundle::Bundle;
use cata_tests::command::{Done, PATIENCE, Run, cata_binary, eventually, runtime_binary};
use cata_tests::harness::Test;
use cata_tests::world::World;
use serde_json::{Value, json};

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(runtime_of_a_user), test!(podman_of_a_user), test!(engine_of_a_user)]
}

pub(crate) const ID: u32 = 4242;

/// Somebody with an entry in `/etc/subuid`, and his own copy of the runtime.
pub(crate) struct User {
    pub(crate) home: PathBuf,
    pub(crate) runtime: PathBuf,
}

impl User {
    pub(crate) fn new() -> Self {
        let append = |file: &str, line: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            fs::write(file, format!("{text}{line}\n")).unwrap();
        };
        append("/etc/passwd", &format!("alice:x:{ID}:{ID}::/run/alice:/bin/sh"));
        append("/etc/group", &format!("alice:x:{ID}:"));
        append("/etc/subuid", "alice:700000:65536");
        append("/etc/subgid", "alice:700000:65536");
        let home = PathBuf::from("/run/alice");
        for dir in [home.clone(), home.join("run")] {
            fs::create_dir(&dir).unwrap();
            chown(&dir, Some(ID), Some(ID)).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let runtime = PathBuf::from("/run/cata-runtime-of-all");
        fs::copy(runtime_binary(), &runtime).unwrap();
        Self { home, runtime }
    }

    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Run {
        self.become_her(Run::new("setpriv")).arg(program.as_ref())
    }

    /// The words of a `setpriv` before the program.
    pub(crate) fn become_her(&self, run: Run) -> Run {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        run.args(["--reuid", "alice", "--regid", "alice", "--init-groups", "env", "-i", "-C"])
            .arg(&self.home)
            .arg(format!("HOME={}", self.home.display()))
            .arg(format!("XDG_RUNTIME_DIR={}", self.home.join("run").display()))
            .arg(format!("PATH={path}"))
    }

    /// Her own copy of the engine, with the image `busybox` in it.
    pub(crate) fn engine(&self, w: &World) -> PathBuf {
        let bin = PathBuf::from("/run/bin-of-all");
        fs::create_dir(&bin).unwrap();
        let cata = bin.join("cata");
        fs::copy(cata_binary(), &cata).unwrap();
        fs::copy(cata_binary().with_file_name("cata-supervisor"), bin.join("cata-supervisor")).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let archive = self.home.join("busybox.tar");
        let _ = w.cata(&["save", "-o", archive.to_str().unwrap(), "busybox"]).ok();
        chown(&archive, Some(ID), Some(ID)).unwrap();
        let _ = self.command(&cata).args(["load", "-i", "busybox.tar"]).done().ok();
        cata
    }

    /// A root of busybox that belongs to her.
    pub(crate) fn root(&self, w: &World, at: &str) -> PathBuf {
        let bundle = Bundle::new(w, "rootless");
        let root = self.home.join(at);
        let _ = Run::new("cp").arg("-a").arg(bundle.rootfs()).arg(&root).done().ok();
        let _ = Run::new("chown").args(["-hR", "alice:alice"]).arg(&root).done().ok();
        root
    }

    fn runtime(&self, words: &[&str]) -> Done {
        self.command(&self.runtime).args(words).done()
    }

    fn podman(&self, words: &[&str]) -> Done {
        let mut run = self.command("podman");
        run = run.args(["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs"]);
        run.arg("--runtime").arg(&self.runtime).args(words).done()
    }
}

fn runtime_of_a_user(w: &World) {
    let alice = User::new();
    alice.root(w, "rootfs");
    let file = alice.home.join("config.json");
    let _ = alice.runtime(&["spec", "--rootless"]).ok();
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount.get("options").is_none_or(Value::is_array)), "{mounts:?}");
    spec["process"]["terminal"] = false.into();
    spec["root"]["readonly"] = false.into();
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_KILL"]);
    }
    let mut set = |args: Value, more: &dyn Fn(&mut Value)| {
        spec["process"]["args"] = args;
        more(&mut spec);
        fs::write(&file, spec.to_string()).unwrap();
    };
    // Her own id alone: no other program is needed.
    set(json!(["sleep", "600"]), &|_| {});
    let _ = alice.runtime(&["run", "--detach", "one"]).ok();
    let inside =
        alice.runtime(&["exec", "one", "sh", "-c", "id -u; cat /proc/self/uid_map; touch /mine; ps"]);
    let lines = inside.ok().lines();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "4242", "1"]);
    assert!(
        lines.iter().any(|line| line.trim().starts_with("1 ") && line.contains("sleep 600")),
        "{lines:?}"
    );
    assert_eq!(fs::metadata(alice.home.join("rootfs/mine")).unwrap().uid(), ID);
    assert!(alice.runtime(&["list"]).ok().stdout.contains("alice"));
    let _ = alice.runtime(&["kill", "one", "KILL"]).ok();
    eventually("its end", PATIENCE, || {
        alice.runtime(&["state", "one"]).stdout.contains("stopped").then_some(())
    });
    let _ = alice.runtime(&["delete", "one"]).ok();

    // CVE-2023-25809: cgroups that are hers, seen without a namespace of theirs.
    for hierarchy in cata_tests::cgroup::hierarchies().unwrap() {
        chown(&hierarchy.mount, Some(ID), Some(ID)).unwrap();
    }
    let script = "for d in $(find /sys/fs/cgroup -type d 2> /dev/null); do mkdir $d/x 2> /dev/null && echo WROTE $d; done; \
        grep -q ' /sys/fs/cgroup' /proc/self/mountinfo && echo seen";
    set(json!(["sh", "-c", script]), &|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    assert_eq!(alice.runtime(&["run", "shown"]).ok().stdout, "seen\n");

    // Those of /etc/subuid, by newuidmap and newgidmap.
    let maps = |first: u32| {
        move |spec: &mut Value| {
            for kind in ["uidMappings", "gidMappings"] {
                spec["linux"][kind] = json!([
                    {"containerID": 0, "hostID": ID, "size": 1}, {"containerID": 1, "hostID": first, "size": 65535},
                ]);
            }
        }
    };
    let script = "touch /f && chown 33:34 /f && stat -c %u:%g /f && grep -c . /proc/self/gid_map";
    set(json!(["sh", "-c", script]), &maps(700_000));
    assert_eq!(alice.runtime(&["run", "two"]).text(), "33:34\n2");
    let at = fs::metadata(alice.home.join("rootfs/f")).unwrap();
    assert_eq!((at.uid(), at.gid()), (700_032, 700_033));
    // Limits are not hers to set: said, and the container runs.
    let limited = |spec: &mut Value| {
        maps(700_000)(spec);
        spec["linux"]["cgroupsPath"] = "/limited".into();
        spec["linux"]["resources"] = json!({"pids": {"limit": 10}});
    };
    set(json!(["true"]), &limited);
    assert!(alice.runtime(&["run", "three"]).ok().stderr.contains("no limits"));

    set(json!(["true"]), &maps(900_000));
    alice.runtime(&["run", "four"]).fails(1, &["newuidmap", "not allowed", "/etc/subuid"]);
    set(json!(["true"]), &maps(700_000));
    let bare = alice.command("env").arg("PATH=/nowhere").arg(&alice.runtime).args(["run", "five"]);
    bare.done().fails(1, &["newuidmap", "package uidmap"]);
    assert_eq!(alice.runtime(&["list", "-q"]).text(), "");
}

fn podman_of_a_user(w: &World) {
    let alice = User::new();
    alice.root(w, "root");
    let _ = alice.command("tar").args(["-C", "root", "-cf", "image.tar", "."]).done().ok();
    let _ = alice.podman(&["import", "image.tar", "bb"]).ok();
    let once = |options: &[&str], script: &str| {
        alice.podman(&[&["run", "--rm"], options, &["bb", "sh", "-c", script]].concat())
    };
    let lines = once(&["--network=none"], "id -u; cat /proc/self/uid_map").lines();
    let maps: Vec<String> =
        lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(maps, ["0", "0 4242 1", "1 700000 65536"]);
    let _ = once(&["--network=host"], "exit 7").exits(7);
    assert_eq!(once(&["--network=none", "--userns=keep-id"], "id -u").text(), "4242");
    assert_eq!(once(&["--network=none", "--user", "5:6"], "id -u; id -g").text(), "5\n6");
    let script = "trap 'exit 5' TERM; echo out; while :; do sleep 0.05; done";
    let _ = alice.podman(&["run", "-d", "--name", "a", "--network=none", "bb", "sh", "-c", script]).ok();
    assert_eq!(alice.podman(&["exec", "a", "sh", "-c", "id -u; exit 3"]).exits(3).stdout, "0\n");
    assert_eq!(alice.podman(&["exec", "-t", "a", "tty"]).text(), "/dev/pts/0");
    eventually("its output", PATIENCE, || (alice.podman(&["logs", "a"]).text() == "out").then_some(()));
    let _ = alice.podman(&["stop", "-t", "50", "a"]).ok();
    assert_eq!(alice.podman(&["inspect", "--format", "{{.State.ExitCode}}", "a"]).text(), "5");
    let _ = alice.podman(&["start", "a"]).ok();
    let _ = alice.podman(&["kill", "a"]).ok();
    assert_eq!(alice.podman(&["wait", "a"]).text(), "137");
    let _ = alice.podman(&["rm", "-f", "a"]).ok();
    // Her own id has no place there.
    let without = once(&["--network=none", "--userns=nomap"], "id -u; cat /proc/self/uid_map").lines();
    let map: Vec<String> =
        without.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(map[0], "0");
    assert!(
        map.iter().skip(1).all(|line| !line.ends_with(" 4242 1") && !line.starts_with("4242 ")),
        "{map:?}"
    );
    // A volume is hers there as here.
    fs::create_dir(alice.home.join("data")).unwrap();
    chown(alice.home.join("data"), Some(ID), Some(ID)).unwrap();
    let volume = format!("{}:/data", alice.home.join("data").display());
    let kept = ["--network=none", "--userns=keep-id", "-v", &volume];
    assert_eq!(once(&kept, "stat -c %u /data; touch /data/f; stat -c %u /data/f").text(), "4242\n4242");
    assert_eq!(fs::metadata(alice.home.join("data/f")).unwrap().uid(), ID);

    // Several containers in each other's namespaces, also that of processes.
    let infra = ["--infra-image", "bb", "--infra-command", "/bin/sleep 600", "--share", "ipc,net,uts,pid"];
    let _ = alice.podman(&[&["pod", "create", "--name", "p", "--network=none"][..], &infra].concat()).ok();
    for name in ["b", "c"] {
        let _ = alice.podman(&["run", "-d", "--pod", "p", "--name", name, "bb", "sh", "-c", script]).ok();
    }
    let of = |name: &str, kind: &str| {
        alice.podman(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]).text()
    };
    for kind in ["ipc", "net", "uts", "pid", "user"] {
        assert_eq!(of("b", kind), of("c", kind), "{kind}");
    }
    assert_ne!(of("b", "mnt"), of("c", "mnt"));
    let seen = alice.podman(&["exec", "b", "ps"]).text();
    assert!(seen.contains("sleep 600"), "{seen}");
    let _ = alice.podman(&["pod", "stop", "-t", "0", "p"]).ok();
    let _ = alice.podman(&["pod", "start", "p"]).ok();
    let _ = alice.podman(&["exec", "c", "true"]).ok();
    let _ = alice.podman(&["pod", "rm", "-f", "-t", "0", "p"]).ok();
    assert_eq!(alice.podman(&["ps", "-aq"]).text(), "");
    // A process of podman's own that keeps its namespaces.
    let pause = fs::read_to_string(alice.home.join("run/libpod/tmp/pause.pid")).unwrap();
    let _ = Run::new("kill").args(["-KILL", pause.trim()]).done().ok();
}

/// CVE-2023-25809: cgroups that are hers are shown, and not to be changed.
fn cgroups_are_only_shown(once: &dyn Fn(&[&str], &str) -> Done) {
    for hierarchy in cata_tests::cgroup::hierarchies().unwrap() {
        chown(&hierarchy.mount, Some(ID), Some(ID)).unwrap();
    }
    let script = "for d in $(find /sys/fs/cgroup -type d 2> /dev/null); do mkdir $d/x 2> /dev/null && echo WROTE $d; done; echo done";
    for network in ["none", "host"] {
        assert_eq!(once(&["--network", network], script).text(), "done");
    }
}

/// The whole of a user's day with `cata`, and what she is told about the rest.
fn engine_of_a_user(w: &World) {
    let alice = User::new();
    let cata = alice.engine(w);
    let run = |words: &[&str]| alice.command(&cata).args(words).done();
    let once = |options: &[&str], script: &str| {
        run(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    };
    let lines = once(&["--network", "none"], "id -u; cat /proc/self/uid_map; ls /sys/class/net").lines();
    let words: Vec<String> =
        lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(words, ["0", "0 4242 1", "1 700000 65536", "lo"]);
    let net = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    cgroups_are_only_shown(&once);
    let own = once(&["--network", "host"], "readlink /proc/self/ns/net; exit 7").exits(7);
    assert_eq!(own.stdout.trim(), net);
    let script = "touch /v/f && chown 33:34 /v/f && stat -c %u:%g /v/f && id -u";
    assert_eq!(once(&["-v", "kept:/v", "-u", "0:0"], script).text(), "33:34\n0");
    let kept = alice.home.join(".local/share/catamaran/volumes/kept/_data/f");
    assert_eq!(fs::metadata(kept).unwrap().uid(), 700_032);

    let script = "echo out; trap 'exit 5' TERM; while :; do sleep 0.05; done";
    let _ = run(&["run", "-d", "--name", "day", "busybox", "sh", "-c", script]).ok();
    assert!(run(&["ps"]).ok().stdout.contains("day"));
    assert_eq!(run(&["exec", "day", "sh", "-c", "id -u; exit 3"]).exits(3).stdout, "0\n");
    eventually("its output", PATIENCE, || (run(&["logs", "day"]).text() == "out").then_some(()));
    let copy = |name: &str| run(&["cp", "busybox.tar", &format!("day:/root/{name}")]);
    let _ = copy("running").ok();
    assert_eq!(run(&["exec", "day", "stat", "-c", "%u", "/root/running"]).text(), "0");
    assert!(run(&["top", "day"]).ok().stdout.contains("trap"));
    for (words, text) in [(&["pause", "day"][..], "pause"), (&["stats", "--no-stream", "day"], "uses")] {
        run(words).fails(1, &[text, "without privileges", "cgroup"]);
    }
    let _ = run(&["stop", "-t", "60", "day"]).ok();
    assert_eq!(run(&["inspect", "--format", "{{.State.ExitCode}}", "day"]).text(), "5");
    let _ = copy("copy").ok();
    assert!(run(&["diff", "day"]).ok().stdout.contains("/root/copy"));
    let _ = run(&["commit", "day", "evening"]).ok();
    let _ = run(&["run", "--rm", "evening", "test", "-s", "/root/copy"]).ok();
    let _ = run(&["start", "day"]).ok();
    // A supervisor that is killed takes its container along, and the next command sees it.
    let pid = run(&["inspect", "--format", "{{.State.Pid}}", "day"]).text();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let _ = Run::new("kill").args(["-KILL", &supervisor]).done().ok();
    eventually("the end of the container", PATIENCE, || {
        (run(&["inspect", "--format", "{{.State.Running}}", "day"]).text() == "false").then_some(())
    });
    let _ = run(&["rm", "-f", "day"]).ok();
    assert_eq!(run(&["ps", "-aq"]).text(), "");

    processes_of_the_host(&run);

    for (options, text) in
        [(&["-m", "64m"][..], "limits"), (&["--isolation", "vm", "-m", "200m"], "--isolation vm")]
    {
        once(options, "true").fails(125, &[text, "without privileges"]);
    }
    // Without newuidmap she is there alone.
    let bare = alice.command("env").arg("PATH=/nowhere").arg(&cata);
    let alone =
        bare.args(["run", "--rm", "--network", "none", "busybox", "grep", "-c", ".", "/proc/self/uid_map"]);
    let alone = alone.done().ok();
    assert_eq!((alone.stdout.trim(), alone.stderr.contains("only your own id")), ("1", true));
    // Where there are no user namespaces to be had, what needs none works.
    let refused = |words: &[&str]| alice.command("unshare").arg("--user").arg(&cata).args(words).done();
    let _ = refused(&["--version"]).ok();
    refused(&["ps"]).fails(1, &["user namespaces", "refuses"]);
    let unset = alice.command("env").args(["-u", "XDG_RUNTIME_DIR"]).arg(&cata).arg("ps");
    unset.done().fails(1, &["XDG_RUNTIME_DIR", "--state"]);
}

/// `--pid host`: the host's processes are hers to see, and none of the container's own is left behind.
fn processes_of_the_host(run: &dyn Fn(&[&str]) -> Done) {
    let script = "sleep 4321 & (sleep 4322 &) ; exec sleep 600";
    let _ = run(&["run", "-d", "--name", "shared", "--pid", "host", "busybox", "sh", "-c", script]).ok();
    let pid = run(&["inspect", "--format", "{{.State.Pid}}", "shared"]).text();
    let look =
        format!("readlink /proc/self/ns/pid; tr '\\0' ' ' < /proc/{pid}/cmdline; head -c 1 /proc/keys");
    let seen = run(&["exec", "shared", "sh", "-c", &look]).ok().lines();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(seen, [own.to_str().unwrap(), "sleep 600 "]);
    let left = || Run::new("pgrep").args(["-fx", "sleep 432[12]"]).done().stdout.lines().count();
    eventually("its further processes", PATIENCE, || (left() == 2).then_some(()));
    let _ = run(&["rm", "-f", "shared"]).ok();
    eventually("their end", PATIENCE, || (left() == 0).then_some(()));
}
