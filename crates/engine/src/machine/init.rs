//! The first process of a machine: it keeps the disk mounted, takes containers up and down with the machine,
//! and reaps what nobody waits for.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cata_sys::mount::{self, Filesystem};
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::paths::Paths;
use crate::record::Record;
use crate::request::MachineDisk;

/// The word on its command line that makes `cata` a machine's first process.
pub const WORD: &str = "__machine";
/// Present from the moment at which the engine in a machine can be asked.
const READY: &str = "/run/catamaran-ready";
/// How long a starter waits for it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long what is not of containers' may take to end.
const LAST: Duration = Duration::from_secs(5);

/// Waits until the machine is ready.
///
/// # Errors
/// [`Error::Timeout`].
pub fn wait_ready() -> Result<()> {
    let start = Instant::now();
    while !Path::new(READY).exists() {
        if start.elapsed() > PATIENCE {
            return Err(Error::Timeout("the first process of the machine".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The whole life of a machine, from its first process's view. `each` hears of containers that are started and
/// stopped with it.
///
/// # Errors
/// Not a machine's first process; no disk; the engine in it cannot be opened.
pub fn run(each: &(dyn Fn(&Record, Result<()>) + Sync)) -> Result<()> {
    if getpid() != Pid::INIT {
        return Err(Error::Invalid("this is what the first process of a machine does".to_owned()));
    }
    // From the first moment: a stop that comes early is heard.
    let wanted = [Signal::TERM, Signal::INT, Signal::CHILD].map(Signal::as_raw);
    let signals = SignalFd::new(&wanted).map_err(Error::file("watch signals of", "/proc/self"))?;
    let paths = Paths::default();
    // A container sees its own part of the tree; the engine in a machine makes cgroups beside it.
    attach("cgroup2", "cgroup2", Path::new("/sys/fs/cgroup"), &[])?;
    let disk = find_disk()?;
    fs::create_dir_all(&paths.root).map_err(Error::file("create", &paths.root))?;
    // What is deleted in it takes no more space on the host.
    attach("ext4", &disk.to_string_lossy(), &paths.root, &["discard"])?;
    let engine = Engine::open(paths.clone())?;
    engine.sweep()?;
    engine.start_at_boot(each)?;
    fs::write(READY, b"").map_err(Error::file("write", READY))?;
    while !is_over(&signals) {}
    engine.stop_for_shutdown(each)?;
    end_others();
    unmount(&paths.root)
}

/// By the name that the machine was given for it.
fn find_disk() -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/block").map_err(Error::file("list", "/sys/block"))?.flatten() {
            let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if serial.trim() == MachineDisk::SERIAL {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        if start.elapsed() > LAST {
            return Err(Error::State { what: "this machine has no disk".to_owned(), hint: None });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn attach(fstype: &str, source: &str, target: &Path, flags: &[&str]) -> Result<()> {
    let mounted = (|| {
        let filesystem = Filesystem::open(fstype)?;
        filesystem.set("source", source.as_bytes())?;
        flags.iter().try_for_each(|flag| filesystem.flag(flag))?;
        let tree = filesystem.mount(0)?;
        let at = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mount::attach(tree.as_fd(), at.as_fd())
    })();
    mounted.map_err(Error::file("mount", target))
}

/// Waits for a signal; true: the machine is to end.
fn is_over(signals: &SignalFd) -> bool {
    // Interrupted is as good as ready.
    let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
    let mut over = false;
    while let Some(signal) = signals.next() {
        over |= signal != Signal::CHILD.as_raw();
    }
    reap();
    over
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Every process but this one: shells that were left, for example.
fn end_others() {
    let start = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        reap();
        let others = others();
        if others.is_empty() || start.elapsed() > LAST * 2 {
            return;
        }
        if start.elapsed() > LAST {
            signal = Signal::KILL;
        }
        for pid in others {
            // Gone meanwhile is as good.
            let _ = kill_process(pid, signal);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn others() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| *pid != Pid::INIT).collect()
}

fn unmount(target: &Path) -> Result<()> {
    rustix::fs::sync();
    let start = Instant::now();
    loop {
        match rustix::mount::unmount(target, UnmountFlags::empty()) {
            // What has just ended may hold on to it a moment longer.
            Err(rustix::io::Errno::BUSY) if start.elapsed() < LAST => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done.map_err(Error::file("unmount", target)),
        }
    }
}
