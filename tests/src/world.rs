//! A private world: a process tree with network, mounts, pids, IPC, host name and cgroups of its own.
//!
//! The program that wants one runs itself again, in stages told by an environment variable:
//!
//! 1. [`Setup::run`], outside: starts stage `cgroup` through `unshare`, holds the write end of a pipe;
//! 2. `cgroup`, already process 1: joins cgroups of its own, then becomes stage `init` in a cgroup namespace;
//! 3. `init`: mounts, brings loopback up, starts stage `inside`, and reaps. When `inside` ends, or the pipe
//!    closes because whoever is outside died, or the deadline passes, process 1 exits; the kernel then ends
//!    everything else in the world;
//! 4. `inside`: the program proper, which gets its [`World`] from [`enter`].
//!
//! Nothing sent inside can leave: the network namespace has loopback and what is made in it. Worlds that share the
//! machine's network are for builds that fetch packages, and make no links in it.

use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::WaitOptions;

use crate::cgroup;

const STAGE: &str = "CATA_WORLD_STAGE";
const NAME: &str = "CATA_WORLD_NAME";
const DIR: &str = "CATA_WORLD_DIR";
const DEADLINE: &str = "CATA_WORLD_DEADLINE";
const LINGER: &str = "CATA_WORLD_LINGER";
const SHARED: &str = "CATA_WORLD_SHARES_NETWORK";
const HOME: &str = "CATA_WORLD_HOME";

/// Process 1's exit code when the deadline passed.
const TIMED_OUT: i32 = 124;

/// What a new world is made with.
#[derive(Debug)]
pub struct Setup {
    /// Its cgroups' name, and its host name: `<kind>-<pid>-<number>`.
    pub name: String,
    /// Its place on disk; made, and removed at the end.
    pub dir: PathBuf,
    /// The arguments this program is run with inside.
    pub args: Vec<OsString>,
    /// Further environment.
    pub env: Vec<(OsString, OsString)>,
    /// When process 1 gives up.
    pub deadline: Option<Duration>,
    /// Process 1 stays after the program has succeeded, until it is killed.
    pub linger: bool,
    /// Where the program's output goes; `None`: where ours goes.
    pub output: Option<File>,
    /// The machine's own network instead of one of its own: for those who fetch from its package registries.
    pub shares_network: bool,
}

impl Setup {
    /// Plays the whole world and cleans up after it.
    ///
    /// # Errors
    /// When it cannot be started. What happens inside is in the exit status.
    pub fn run(self) -> Result<ExitStatus> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let exe = std::env::current_exe().context("find this program")?;
        let mut command = Command::new("unshare");
        if !self.shares_network {
            command.arg("--net");
        }
        command.args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--"]);
        command.arg(exe).args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env(STAGE, "cgroup").env(NAME, &self.name).env(DIR, &self.dir);
        command.env_remove(DEADLINE).env_remove(LINGER).env_remove(SHARED);
        if self.shares_network {
            command.env(SHARED, "1");
        }
        if let Some(home) = std::env::var_os("HOME") {
            command.env(HOME, home);
        }
        if let Some(deadline) = self.deadline {
            command.env(DEADLINE, deadline.as_secs().to_string());
        }
        if self.linger {
            command.env(LINGER, "1");
        }
        // Nothing is ever written: the pipe only tells the world when we are gone.
        command.stdin(Stdio::piped());
        if let Some(output) = &self.output {
            command.stdout(output.try_clone().context("hand out the output file")?);
            command.stderr(output.try_clone().context("hand out the output file")?);
        }
        let mut child = command.spawn().context("run `unshare` (Debian package util-linux)")?;
        let alive = child.stdin.take();
        let status = child.wait().context("wait for the world");
        drop(alive);
        cgroup::remove(&self.name);
        remove_dir(&self.dir)?;
        status
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what worlds left whose maker was killed: groups and directories.
pub fn sweep() {
    cgroup::sweep(is_stale);
    let Ok(dir) = crate::cache::dir() else { return };
    for entry in fs::read_dir(dir.join("worlds")).into_iter().flatten().flatten() {
        if is_stale(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether this is a world's name, `cata-<kind>-<pid>…`, and no process `<pid>` is there any more.
fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    let ours = parts.next() == Some("cata") && parts.next().is_some();
    let maker = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    ours && maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The world this process is in.
#[derive(Debug)]
pub struct World {
    /// Its name.
    pub name: String,
    /// Its place on the machine's disk.
    pub dir: PathBuf,
}

impl World {
    /// The engine's `--root`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The engine's `--state`, on a tmpfs, with a short name because sockets live there.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        PathBuf::from("/run/catamaran")
    }

    /// A directory for whatever else is needed; on disk.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// A file in [`World::scratch`] with this content.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.scratch().join(name);
        fs::write(&path, content).expect("the scratch directory is ours");
        path
    }
}

/// To be called first in `main`: plays this process's stage if it is part of making a world.
///
/// Returns `None` outside of any world, and the world inside. The stages between do not return.
///
/// # Errors
/// When a stage fails.
pub fn enter() -> Result<Option<World>> {
    let Some(stage) = std::env::var_os(STAGE) else { return Ok(None) };
    let name = std::env::var(NAME).with_context(|| format!("{NAME} is not set"))?;
    let dir = PathBuf::from(std::env::var_os(DIR).with_context(|| format!("{DIR} is not set"))?);
    match stage.to_str() {
        Some("cgroup") => {
            cgroup::join(&name)?;
            let error = Command::new("unshare")
                .args(["--cgroup", "--"])
                .args(std::env::args_os())
                .env(STAGE, "init")
                .exec();
            Err(error).context("run `unshare --cgroup`")
        }
        Some("init") => init(&name, &dir),
        _ => Ok(Some(World { name, dir })),
    }
}

/// Process 1.
fn init(name: &str, dir: &Path) -> ! {
    let code = match furnish(name, dir).and_then(|()| play(dir)) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("world {name}: {error:#}"));
            125
        }
    };
    if code == 0 && std::env::var_os(LINGER).is_some() {
        loop {
            // Children of others come and go for as long as somebody uses the world.
            if rustix::process::wait(WaitOptions::empty()).is_err() {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
    cgroup::thaw();
    std::process::exit(code)
}

fn complain(text: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "{text}");
}

/// Mounts what a world sees as its own, and brings up loopback.
fn furnish(name: &str, dir: &Path) -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    let none = None::<&CStr>;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::unmount("/proc", UnmountFlags::DETACH).context("detach the machine's /proc")?;
    rustix::mount::mount("proc", "/proc", "proc", plain, none).context("mount /proc")?;
    rustix::mount::unmount("/sys", UnmountFlags::DETACH).context("detach the machine's /sys")?;
    rustix::mount::mount("sysfs", "/sys", "sysfs", plain, none).context("mount /sys")?;
    cgroup::mount(&hierarchies)?;

    // A place that this program itself stands on must stay visible.
    let mut ours =
        vec![std::env::current_exe()?, std::env::current_dir()?, dir.to_owned(), crate::cache::dir()?];
    ours.extend(
        ["CATA_BIN", "CATA_SUPERVISOR", "CATA_RUNTIME"]
            .into_iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from),
    );
    for (target, options) in [("/run", c"mode=755"), ("/tmp", c"mode=1777"), ("/dev/shm", c"mode=1777")] {
        if Path::new(target).is_dir() && !ours.iter().any(|path| path.starts_with(target)) {
            rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID, options)
                .with_context(|| format!("mount a tmpfs on {target}"))?;
        }
    }
    // Configuration can be written without the machine noticing.
    for part in ["upper", "work"] {
        fs::create_dir_all(format!("/run/world/etc/{part}")).context("create /run/world/etc")?;
    }
    let options = c"lowerdir=/etc,upperdir=/run/world/etc/upper,workdir=/run/world/etc/work";
    rustix::mount::mount("overlay", "/etc", "overlay", MountFlags::empty(), options)
        .context("mount an overlay on /etc")?;

    for part in ["home", "scratch"] {
        fs::create_dir_all(dir.join(part)).with_context(|| format!("create {}", dir.display()))?;
    }
    rustix::system::sethostname(name.as_bytes()).context("set the host name")?;
    if shares_network() {
        return Ok(());
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let up = up.context("run `ip` (Debian package iproute2)")?;
    anyhow::ensure!(up.success(), "`ip link set lo up`: {up}");
    Ok(())
}

/// Whether the world has the machine's network.
#[must_use]
pub fn shares_network() -> bool {
    std::env::var_os(SHARED).is_some()
}

/// The home directory of who started the world.
#[must_use]
pub fn machines_home() -> Option<PathBuf> {
    std::env::var_os(HOME).map(PathBuf::from)
}

/// Starts the program proper and reaps until it has ended.
fn play(dir: &Path) -> Result<i32> {
    watch_outside();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(STAGE, "inside").env("HOME", dir.join("home"));
    command.env("CATA_ROOT", dir.join("root")).env("CATA_STATE", "/run/catamaran").env("TMPDIR", "/tmp");
    for machines in
        ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMUX", "DOCKER_HOST", "DOCKER_CONFIG"]
    {
        command.env_remove(machines);
    }
    // The cache was found by the machine's HOME.
    command.env("CATA_CACHE", crate::cache::dir()?);
    command.stdin(Stdio::null());
    let child = command.spawn().context("start the program inside")?;
    let ours = i32::try_from(child.id()).context("a process id")?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == ours => {
                let status = ExitStatus::from_raw(status.as_raw());
                return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the program inside"),
        }
    }
}

/// Ends the world when the pipe on standard input closes, or at the deadline.
fn watch_outside() {
    std::thread::spawn(|| {
        let mut nothing = [0_u8; 1];
        let _ = io::stdin().read(&mut nothing);
        std::process::exit(TIMED_OUT + 1);
    });
    let deadline = std::env::var(DEADLINE).ok().and_then(|text| text.parse().ok());
    if let Some(seconds) = deadline {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(seconds));
            complain(&format!("the world's deadline of {seconds} s has passed; still running in it:"));
            complain(&processes());
            std::process::exit(TIMED_OUT);
        });
    }
}

/// The world's processes, a line each: what to look at when something hangs.
#[must_use]
pub fn processes() -> String {
    let mut lines = Vec::new();
    for pid in pids() {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        lines.push(format!("{pid:>7} {command}"));
    }
    lines.join("\n")
}

/// Every process id visible in `/proc`.
#[must_use]
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_living_and_of_others_are_not_stale() {
        let me = std::process::id();
        for name in [format!("cata-test-{me}-0"), "system.slice".into(), "cata".into(), "cata-x-y".into()] {
            assert!(!is_stale(&name), "{name}");
        }
        // Process ids end below this.
        assert!(is_stale("cata-test-4294967295-0"));
    }
}
