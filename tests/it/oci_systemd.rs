//! `cata-runtime --systemd-cgroup` with a systemd that makes its scopes: by hand, and under podman.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use cata_tests::bundle::Bundle;
use cata_tests::cgroup;
use cata_tests::command::{Done, PATIENCE, Run, eventually, runtime_binary};
use cata_tests::harness::Test;
use cata_tests::systemd::Systemd;
use cata_tests::world::World;
use serde_json::{Value, json};

use crate::oci_rootless::{ID, User};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(scopes_of_systemd).also_in_lab_for(75),
        test!(podman_with_systemd),
        test!(scope_of_a_users_systemd).also_in_lab(),
    ]
}

/// `systemctl show` of some properties, in systemd's order of their names.
fn properties(systemd: &Systemd, unit: &str, names: &str) -> String {
    systemd.command("systemctl").args(["show", "--property", names, unit]).done().text()
}

/// A bundle for the runtime where systemd is.
struct Boxed {
    systemd: Systemd,
    b: Bundle,
    state: PathBuf,
}

impl Boxed {
    fn runtime(&self, words: &[&str]) -> Done {
        let text = serde_json::to_vec(&self.b.spec).unwrap();
        fs::write(self.b.dir.join("config.json"), text).unwrap();
        let run = self.systemd.command(runtime_binary()).arg("--root").arg(&self.state);
        run.arg("--systemd-cgroup").args(words).done()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.runtime(&["state", "c1"]).stdout).unwrap_or_default()
    }

    /// Properties of its scope, sorted.
    fn show(&self, names: &str) -> Vec<String> {
        let shown = properties(&self.systemd, "box-c1.scope", names);
        let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn scopes_of_systemd(w: &World) {
    let systemd = Systemd::start();
    let mut b = Bundle::new(w, "b");
    b.script("trap 'exit 3' TERM; echo started > /said; while :; do sleep 0.05; done");
    b.spec["linux"]["cgroupsPath"] = "test-a.slice:box:c1".into();
    b.spec["linux"]["resources"] = json!({
        "memory": {"limit": 50 << 20}, "pids": {"limit": 33}, "cpu": {"quota": 50_000, "period": 100_000},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    b.spec["linux"]["devices"] = json!([{"path": "/dev/other", "type": "c", "major": 10, "minor": 232}]);
    b.spec["annotations"] = json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000"});
    let dir = b.dir.to_str().unwrap().to_owned();
    let mut x = Boxed { state: w.scratch().join("containers"), systemd, b };
    let _ = x.runtime(&["create", "--bundle", &dir, "c1"]).ok();
    assert_eq!(x.status()["status"], "created");
    let path = "test.slice/test-a.slice/box-c1.scope";
    let group = format!("ControlGroup=/{path}");
    assert_eq!(
        x.show("ActiveState,Slice,Delegate,TasksMax,TimeoutStopUSec,CPUQuotaPerSecUSec,ControlGroup"),
        [
            "ActiveState=active",
            "CPUQuotaPerSecUSec=500ms",
            group.as_str(),
            "Delegate=yes",
            "Slice=test-a.slice",
            "TasksMax=33",
            "TimeoutStopUSec=7s"
        ]
    );
    let first = |names: [&str; 2]| {
        let controller = names[0].split('.').next().unwrap();
        let group = x.systemd.group(controller, path);
        let found = names.iter().find_map(|name| fs::read_to_string(group.join(name)).ok());
        found.unwrap_or_else(|| panic!("no {names:?} in {}", group.display())).trim().to_owned()
    };
    assert_eq!(first(["memory.limit_in_bytes", "memory.max"]), (50 << 20).to_string());
    assert_eq!(first(["pids.max", "pids.max"]), "33");

    let _ = x.runtime(&["start", "c1"]).ok();
    eventually("its program", PATIENCE, || {
        fs::read_to_string(x.b.rootfs().join("said")).is_ok_and(|said| said == "started\n").then_some(())
    });
    // What the container sees of cgroups is its own; a further process is in the same; devices are as they were.
    let script = "cat /proc/self/cgroup; test -w /dev/null && echo > /dev/null && \
        ! cat /dev/other 2> /tmp/why && cat /tmp/why";
    let inside = x.runtime(&["exec", "c1", "sh", "-c", script]).ok().stdout;
    assert!(inside.contains("not permitted"), "{inside}");
    let groups = || inside.lines().filter_map(|line| line.split_once(":/"));
    assert!(groups().all(|(_, path)| path.is_empty()), "{inside}");
    let _ = x.runtime(&["pause", "c1"]).ok();
    assert_eq!(x.status()["status"], "paused");
    let _ = x.runtime(&["resume", "c1"]).ok();
    let _ = x.runtime(&["update", "--pids-limit", "44", "--memory", "60000000", "c1"]).ok();
    // What systemd does to its units does not undo it.
    let _ = x.systemd.command("systemctl").arg("daemon-reload").done().ok();
    assert_eq!(x.show("TasksMax"), ["TasksMax=44"]);
    assert_eq!(first(["pids.max", "pids.max"]), "44");
    let _ = x.runtime(&["exec", "c1", "sh", "-c", "! cat /dev/other"]).ok();
    let terminal = "test $(tty) = /dev/pts/0";
    let _ = x.runtime(&["exec", "--tty", "c1", "sh", "-c", terminal]).ok();
    let _ = x.runtime(&["kill", "c1"]).ok();
    eventually("its end", PATIENCE, || (x.status()["status"] == "stopped").then_some(()));
    let _ = x.runtime(&["delete", "c1"]).ok();
    assert!(!x.systemd.group("memory", path).exists());

    // systemd ends it: the container is stopped.
    let _ = x.runtime(&["run", "--detach", "--bundle", &dir, "c1"]).ok();
    let _ = x.systemd.command("systemctl").args(["stop", "box-c1.scope"]).done().ok();
    eventually("its end", PATIENCE, || (x.status()["status"] == "stopped").then_some(()));
    let _ = x.runtime(&["delete", "c1"]).ok();
    let _ = x.runtime(&["run", "--detach", "--bundle", &dir, "c1"]).ok();
    let _ = x.runtime(&["delete", "--force", "c1"]).ok();

    checkpointed(&x, &dir, &w.scratch().join("images").display().to_string());
    refused(&mut x, &dir);
}

/// Where CRIU works: what is restored has a scope of systemd's again, with its limits.
fn checkpointed(x: &Boxed, dir: &str, images: &str) {
    if x.systemd.command("criu").arg("check").done().code() != 0 {
        return;
    }
    let _ = x.runtime(&["run", "--detach", "--bundle", dir, "c1"]).ok();
    let _ = x.runtime(&["checkpoint", "--image-path", images, "c1"]).ok();
    eventually("the scope's end", PATIENCE, || {
        (x.show("ActiveState") == ["ActiveState=inactive"]).then_some(())
    });
    let _ = x.runtime(&["restore", "--detach", "--image-path", images, "--bundle", dir, "c1"]).ok();
    assert_eq!(x.status()["status"], "running");
    assert_eq!(x.show("ActiveState,TasksMax"), ["ActiveState=active", "TasksMax=33"]);
    let _ = x.runtime(&["exec", "c1", "sh", "-c", "! cat /dev/other"]).ok();
    let _ = x.runtime(&["delete", "--force", "c1"]).ok();
}

fn refused(x: &mut Boxed, dir: &str) {
    // What fails leaves nothing with systemd.
    x.b.spec["process"]["args"] = json!(["nosuch"]);
    x.runtime(&["run", "--bundle", dir, "c1"]).fails(1, &["executable file not found"]);
    assert_eq!(x.show("ActiveState"), ["ActiveState=inactive"]);
    x.b.spec["process"]["args"] = json!(["true"]);
    x.b.spec["annotations"] = json!({"org.systemd.property.NoSuch": "true"});
    x.runtime(&["run", "--bundle", dir, "c1"]).fails(1, &["systemd", "NoSuch"]);
    x.b.spec["annotations"] = json!({"org.systemd.property.Delegate": "maybe"});
    x.runtime(&["run", "--bundle", dir, "c1"]).fails(1, &["maybe", "Delegate"]);
    x.b.spec["annotations"] = json!({});
    x.b.spec["linux"]["cgroupsPath"] = "/plain/path".into();
    x.runtime(&["run", "--bundle", dir, "c1"]).fails(1, &["slice:prefix:name"]);
    // Without a path it has one by default.
    x.b.spec["linux"]["cgroupsPath"] = "".into();
    x.b.script("cat /proc/1/cgroup");
    let _ = x.runtime(&["run", "--bundle", dir, "c1"]).ok();
    // Where there is none it is said.
    x.systemd.kill();
    x.b.spec["linux"]["cgroupsPath"] = "a.slice:b:c".into();
    x.b.runtime(["--systemd-cgroup", "run", "--bundle", dir, "c2"])
        .fails(1, &["systemd", "/run/systemd/private"]);
    x.b.runtime(["run", "--bundle", dir, "c2"]).fails(1, &["systemd driver"]);
}

/// podman, whose containers are then scopes too.
fn podman_with_systemd(w: &World) {
    let systemd = Systemd::start();
    let bundle = Bundle::new(w, "image");
    let tar = w.scratch().join("image.tar");
    let _ = Run::new("tar").arg("-C").arg(bundle.rootfs()).arg("-cf").arg(&tar).arg(".").done().ok();
    let podman = |words: &[&str]| {
        let run = systemd.command("podman").arg("--root").arg(w.scratch().join("podman/root"));
        run.args(["--runroot", "/run/podman", "--tmpdir", "/run/podman.tmp"])
            .args(["--cgroup-manager=systemd", "--events-backend=file", "--storage-driver=vfs"])
            .arg("--runtime")
            .arg(runtime_binary())
            .args(words)
            .done()
    };
    let _ = podman(&["import", tar.to_str().unwrap(), "bb"]).ok();
    let script = "trap 'exit 5' TERM; echo out; while :; do sleep 0.05; done";
    let limits = ["--network=none", "--memory", "50m", "--pids-limit", "33"];
    let run = [&["run", "-d", "--name", "a"], &limits[..], &["bb", "sh", "-c", script]].concat();
    let id = podman(&run).ok().text();
    let unit = format!("libpod-{id}.scope");
    let shown = properties(&systemd, &unit, "ActiveState,Slice,TasksMax");
    for line in ["ActiveState=active", "Slice=machine.slice", "TasksMax=33"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert_eq!(podman(&["exec", "a", "sh", "-c", "echo inside; exit 3"]).exits(3).stdout, "inside\n");
    eventually("its output", PATIENCE, || (podman(&["logs", "a"]).text() == "out").then_some(()));
    let _ = podman(&["pause", "a"]).ok();
    let _ = podman(&["unpause", "a"]).ok();
    let _ = podman(&["stop", "-t", "50", "a"]).ok();
    assert_eq!(podman(&["inspect", "--format", "{{.State.ExitCode}}", "a"]).text(), "5");
    let _ = podman(&["rm", "-f", "a"]).ok();
    eventually("the end of its scope", PATIENCE, || {
        properties(&systemd, &unit, "ActiveState").contains("inactive").then_some(())
    });
}

/// The systemd of a user's session makes scopes for her, in the cgroups that are hers.
fn scope_of_a_users_systemd(w: &World) {
    let alice = User::new();
    alice.root(w, "rootfs");
    let mut groups = Vec::new();
    for hierarchy in cgroup::hierarchies().unwrap() {
        if hierarchy.v1.as_deref().is_some_and(|options| !options.contains("name=systemd")) {
            continue;
        }
        let group = hierarchy.mount.join("of-alice");
        fs::create_dir(&group).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
            if group.join(file).exists() {
                chown(group.join(file), Some(ID), Some(ID)).unwrap();
            }
        }
        groups.push(group);
    }
    // By this systemd knows that another one has booted the machine.
    fs::create_dir_all("/run/systemd/system").unwrap();
    let units = alice.home.join("units");
    fs::create_dir(&units).unwrap();
    fs::write(units.join("default.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
    let join = |below: &str| -> String {
        let line = |group: &PathBuf| format!("echo 0 > {}/{below}cgroup.procs\n", group.display());
        groups.iter().map(line).collect()
    };
    let paths = format!("SYSTEMD_UNIT_PATH=/run/alice/run/systemd/transient:{}", units.display());
    let run = Run::new("sh").args(["-ec", &format!("{}exec setpriv \"$@\"", join("")), "sh"]);
    let run = alice.become_her(run).arg("env").arg(paths);
    let mut manager = run.args(["/lib/systemd/systemd", "--user", "--log-target=console"]).start();
    eventually("her systemd", PATIENCE, || {
        assert!(manager.poll().is_none(), "it has ended: {}", manager.stderr());
        std::os::unix::net::UnixStream::connect("/run/alice/run/systemd/private").ok()
    });
    let inside = |words: &[&str]| -> Done {
        let script = format!("{}exec setpriv \"$@\"", join("init.scope/"));
        alice.become_her(Run::new("sh").args(["-ec", &script, "sh"])).args(words).done()
    };
    let program = alice.runtime.to_str().unwrap();
    let runtime = |words: &[&str]| inside(&[&[program, "--systemd-cgroup"], words].concat());
    let file = alice.home.join("config.json");
    let _ = runtime(&["spec", "--rootless"]).ok();
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["sleep", "600"]);
    spec["linux"]["cgroupsPath"] = "user.slice:box:c1".into();
    spec["linux"]["resources"] = json!({"pids": {"limit": 33}});
    fs::write(&file, spec.to_string()).unwrap();
    let _ = runtime(&["run", "--detach", "c1"]).ok();
    let show = |name: &str| {
        inside(&["systemctl", "--user", "show", "--property", name, "--value", "box-c1.scope"]).ok().text()
    };
    assert_eq!((show("ActiveState"), show("TasksMax")), ("active".to_owned(), "33".to_owned()));
    let state: Value = serde_json::from_str(&runtime(&["state", "c1"]).ok().stdout).unwrap();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert!(own.contains("/user.slice/box-c1.scope"), "{own}");
    let _ = runtime(&["exec", "c1", "true"]).ok();
    let _ = runtime(&["delete", "--force", "c1"]).ok();
    assert_eq!(show("ActiveState"), "inactive");
    manager.kill();
}
