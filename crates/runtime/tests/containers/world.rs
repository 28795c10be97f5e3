//! A private mount namespace with a busybox root in it, and short ways to run things.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cata_runtime::plan::{Host, Options, Plan, Root, plan};
use cata_runtime::{Handles, SpawnError, Spawned, spawn};
use cata_spec::runtime::Spec;
use rustix::process::WaitOptions;
use serde_json::{Value, json};

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // Above the cgroups of single containers; not there when no test made one.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(CGROUP));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(CGROUP));
    }
}

/// Where the cgroups of these tests are.
pub(crate) const CGROUP: &str = "cata-dev-runtime";

/// What a process left.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Exit code, or 128 + signal.
    pub(crate) code: i32,
    pub(crate) output: String,
    pub(crate) withheld: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        cata_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).expect("a mount namespace");
        let private = cata_sys::mount::attribute::PRIVATE;
        cata_sys::mount::set_propagation(Path::new("/"), private, cata_sys::mount::Depth::Recursive)
            .expect("private mounts");
        let dir = tempfile::tempdir().expect("a directory");
        cata_sys::mount::mount_classic("tmpfs", dir.path(), "tmpfs", false, b"").expect("a tmpfs");
        let world = Self { dir };
        let layer = world.layer();
        for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(layer.join(name)).expect("a directory");
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox-static");
        for applet in
            "sh true false cat ls id env pwd stat mount hostname sleep kill ps test echo tty stty readlink touch \
             mkdir head grep wc umask trap wget sysctl mkfifo mknod nproc ulimit setsid unshare chroot date sed"
                .split_whitespace()
        {
            let _ = std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet));
        }
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n",
        )
        .expect("passwd");
        fs::write(layer.join("etc/group"), "root:x:0:\npostgres:x:999:\nssl-cert:x:101:postgres\n")
            .expect("group");
        fs::write(layer.join("bin/noexec"), "#!/bin/sh\n").expect("a file");
        script(&layer.join("bin/nointerp"), "#!/nowhere/sh\n");
        script(&layer.join("bin/garbage"), "garbage");
        world
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    /// A directory of this world.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// A fresh overlay on the layer, with `extra` layers above it.
    pub(crate) fn overlay(&self, extra: &[PathBuf]) -> Root {
        let base =
            tempfile::Builder::new().prefix("c").tempdir_in(self.dir.path()).expect("a directory").keep();
        let (upper, work) = (base.join("upper"), base.join("work"));
        fs::create_dir_all(&upper).expect("upper");
        fs::create_dir_all(&work).expect("work");
        let mut lower = extra.to_vec();
        lower.push(self.layer());
        Root::Overlay { lower, upper: Some(upper), work: Some(work), options: Vec::new(), as_on_disk: false }
    }

    pub(crate) fn options(&self) -> Options {
        Options { root: Some(self.overlay(&[])), ..Options::default() }
    }

    pub(crate) fn plan(&self, spec: &Value) -> Plan {
        self.plan_with(spec, &self.options())
    }

    pub(crate) fn plan_with(&self, spec: &Value, options: &Options) -> Plan {
        let spec: Spec = serde_json::from_value(spec.clone()).expect("a specification");
        let planned = plan(&spec, &Host::detect(), options).expect("a plan");
        // What a supervisor gets has been text in between.
        serde_json::from_str(&serde_json::to_string(&planned).expect("text")).expect("a plan again")
    }

    /// Runs a shell script in a container with the usual specification.
    pub(crate) fn sh(&self, script: &str) -> Outcome {
        self.run(&self.plan(&spec(&["sh", "-c", script])))
    }

    pub(crate) fn run(&self, plan: &Plan) -> Outcome {
        self.try_run(plan).expect("a container")
    }

    pub(crate) fn try_run(&self, plan: &Plan) -> Result<Outcome, SpawnError> {
        let cgroup = plan.cgroup.as_ref().map(|c| cata_runtime::cgroup::create(c).expect("a cgroup"));
        let result = capture(|handles| {
            let handles = Handles { cgroup: cgroup.as_ref(), ..handles.clone() };
            spawn(plan, &handles)
        });
        if let Some(cgroup) = cgroup {
            cgroup.remove(std::time::Duration::from_secs(60)).expect("an empty cgroup");
        }
        result
    }
}

pub(crate) fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}

/// Starts something with pipes for output, waits, and collects.
pub(crate) fn capture(
    start: impl FnOnce(&Handles<'_>) -> Result<Spawned, SpawnError>,
) -> Result<Outcome, SpawnError> {
    let null = fs::File::open("/dev/null").expect("/dev/null");
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let spawned = start(&Handles::new(null.as_fd(), write.as_fd(), write.as_fd()))?;
    drop(write);
    let mut output = String::new();
    fs::File::from(read).read_to_string(&mut output).expect("output");
    Ok(Outcome { code: wait(&spawned), output: output.trim_end().to_owned(), withheld: spawned.withheld })
}

pub(crate) fn wait(spawned: &Spawned) -> i32 {
    let (_, status) = rustix::process::waitpid(Some(spawned.pid), WaitOptions::empty())
        .expect("a child")
        .expect("a status");
    status.exit_status().or(status.terminating_signal().map(|s| 128 + s)).expect("it has ended")
}

/// A container with `sleep` that goes on until dropped.
pub(crate) struct Running {
    pub(crate) spawned: Spawned,
    _null: OwnedFd,
}

impl Running {
    pub(crate) fn start(plan: &Plan) -> Self {
        let null = OwnedFd::from(fs::File::open("/dev/null").expect("/dev/null"));
        let spawned =
            spawn(plan, &Handles::new(null.as_fd(), null.as_fd(), null.as_fd())).expect("a container");
        Self { spawned, _null: null }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.spawned.pid.as_raw_nonzero().get()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.spawned.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.spawned.pid), WaitOptions::empty());
    }
}

pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What Docker gives an ordinary container.
pub(crate) fn spec(argv: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": argv,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
        },
        "root": {"path": "/", "readonly": false},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"},
                {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
