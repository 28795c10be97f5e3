//! A container to play with: a busybox root, its own state directories, its own cgroup, a real supervisor.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cata_runtime::cgroup::Layout;
use cata_runtime::plan::{Host, Options, Plan};
use cata_sandbox::client::Client;
use cata_sandbox::launch::{Go, HealthPlan, Isolation, Launch, LogPlan, RestartPolicy, StdinPlan, Undo};
use cata_sandbox::protocol::{Exec, ExecStdio, Streams};
use cata_sandbox::status::{self, Status, StatusKind};
use cata_sandbox::{LaunchError, Running};
use cata_spec::{ContainerId, runtime as oci};

/// Nothing here may take longer.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The cgroup above those of this process's containers: made with the first, removed with the last.
struct Parent;

static CHILDREN: Mutex<usize> = Mutex::new(0);

impl Parent {
    fn hold() -> Self {
        *CHILDREN.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }

    fn name() -> String {
        format!("cata-dev-supervisor-{}", std::process::id())
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        *children -= 1;
        // Whoever comes next waits for the lock: it is not taken away under somebody's hands.
        if *children == 0 {
            for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let _ = fs::remove_dir(hierarchy.path().join(Self::name()));
            }
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(Self::name()));
        }
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) launch: Launch,
    // Dropped last.
    _parent: Parent,
}

impl World {
    /// A container that runs `script` in a shell.
    pub(crate) fn new(script: &str) -> Self {
        let parent = Parent::hold();
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("root");
        busybox(&root);
        let state_dir = dir.path().join("state");
        let container_dir = dir.path().join("container");
        fs::create_dir(&state_dir).expect("mkdir");
        fs::create_dir(&container_dir).expect("mkdir");
        let mut seed = [0; 32];
        fs::File::open("/dev/urandom").expect("urandom").read_exact(&mut seed).expect("read");
        let id = ContainerId::from_random(seed);
        let cgroup = Layout::detect().ok().and_then(|layout| {
            let path = cgroup_path(&id);
            cata_runtime::cgroup::plan(None, &path, &layout).ok()
        });
        let launch = Launch {
            plan: Plan { cgroup, ..plan(&root, script) },
            id,
            isolation: Isolation::Process,
            vm: None,
            state_dir,
            container_dir,
            log: LogPlan::JsonFile { max_size: 10 << 20, max_file: 3 },
            stdin: StdinPlan::Closed,
            restart: RestartPolicy::No,
            health: None,
            stop_signal: 15,
            stop_timeout: Some(Duration::from_secs(5)),
            auto_remove: false,
            leashed: false,
            story: None,
            undo: Vec::new(),
            undo_late: Vec::new(),
        };
        Self { dir, launch, _parent: parent }
    }

    pub(crate) fn cgroup_path(&self) -> String {
        cgroup_path(&self.launch.id)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> &Path {
        &self.launch.state_dir
    }

    pub(crate) fn pending(&self) -> cata_sandbox::Pending {
        // The memory figures are taken with the release build.
        let release = std::env::var_os("CATA_TEST_SUPERVISOR").map(PathBuf::from);
        let supervisor = release.unwrap_or_else(|| env!("CARGO_BIN_EXE_cata-supervisor").into());
        cata_sandbox::launch(&self.launch, &supervisor).expect("spawned")
    }

    pub(crate) fn try_start(&self, attach: Option<Streams>) -> Result<Running, LaunchError> {
        self.pending().go(Go::default(), Vec::new(), attach)
    }

    pub(crate) fn start(&self) -> Running {
        self.try_start(None).expect("started")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.state()).expect("supervisor listens")
    }

    pub(crate) fn status(&self) -> Status {
        status::read(self.state()).expect("status")
    }

    pub(crate) fn exit(&self) -> Status {
        status::read_exit(&self.launch.container_dir).expect("exit record")
    }

    /// Waits until the live state is as wished.
    pub(crate) fn until(&self, what: &str, wish: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            if let Ok(status) = status::read(self.state())
                && wish(&status)
            {
                return status;
            }
            assert!(start.elapsed() < SOON, "never {what}: {:?}", status::read(self.state()));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn until_kind(&self, kind: StatusKind) -> Status {
        self.until(&format!("{kind:?}"), |status| status.status == kind)
    }

    /// Waits until the supervisor has left.
    pub(crate) fn until_left(&self) {
        wait_for("supervisor left", || !status::alive(self.state()));
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let dir = cata_sandbox::log::directory(&self.launch.container_dir);
        let mut sink = |entry: cata_sandbox::log::Entry| {
            bytes.extend(entry.bytes);
            std::ops::ControlFlow::Continue(())
        };
        cata_sandbox::log::read(&dir, &cata_sandbox::log::Options::default(), &mut sink).expect("log");
        bytes
    }

    /// Waits until the log has this.
    pub(crate) fn until_said(&self, what: &[u8]) {
        let said = || self.log().windows(what.len()).any(|part| part == what);
        wait_for(&format!("{} said", String::from_utf8_lossy(what)), said);
    }

    /// Waits until the log does not grow any more; its length. What was on the way may still arrive before.
    pub(crate) fn until_still(&self) -> usize {
        let mut length = self.log().len();
        wait_for("the log stands still", || {
            std::thread::sleep(Duration::from_millis(250));
            let before = std::mem::replace(&mut length, self.log().len());
            before == length
        });
        length
    }

    pub(crate) fn undo_marker(&mut self) -> PathBuf {
        let marker = self.path("marker");
        fs::write(&marker, "x").expect("write");
        self.launch.undo.push(Undo::Unlink(marker.clone()));
        marker
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test shall leave nothing running.
        if let Ok(mut client) = Client::connect(self.state()) {
            let _ = client.stop(Some(9), Some(0), None);
        }
        let start = Instant::now();
        while status::alive(self.state()) && start.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn wait_for(what: &str, mut wish: impl FnMut() -> bool) {
    let start = Instant::now();
    while !wish() {
        assert!(start.elapsed() < SOON, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn probe(argv: &[&str]) -> HealthPlan {
    HealthPlan {
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        interval: Duration::from_millis(150),
        timeout: Duration::from_secs(5),
        start_period: Duration::ZERO,
        start_interval: Duration::from_millis(50),
        retries: 2,
        on_unhealthy: cata_sandbox::launch::OnUnhealthy::None,
    }
}

pub(crate) fn exec(id: &str, script: &str, streams: Streams) -> Exec {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).into();
    let request = cata_runtime::ExecRequest { argv, ..Default::default() };
    Exec { id: id.to_owned(), request, stdio: ExecStdio::Passed(streams), wait: true }
}

pub(crate) fn read_all(fd: Option<OwnedFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::from(fd.expect("a stream")).read_to_end(&mut bytes).expect("read");
    bytes
}

fn cgroup_path(id: &ContainerId) -> String {
    format!("/{}/{id}", Parent::name())
}

fn busybox(root: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in
        ["sh", "sleep", "cat", "echo", "true", "false", "kill", "head", "dd", "ls", "stty", "tty", "mount"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("symlink");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("write");
}

pub(crate) fn plan(root: &Path, script: &str) -> Plan {
    let mut spec = oci::Spec::default();
    let mut process = oci::Process::default();
    process.set_args(Some(["/bin/sh", "-c", script].map(str::to_owned).into()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(Some(false));
    process.set_cwd("/".into());
    process.set_rlimits(None);
    spec.set_process(Some(process));
    let mut oci_root = oci::Root::default();
    oci_root.set_path(root.to_owned());
    oci_root.set_readonly(Some(false));
    spec.set_root(Some(oci_root));
    cata_runtime::plan::plan(&spec, &Host { cgroups: None }, &Options::default()).expect("a plan")
}
