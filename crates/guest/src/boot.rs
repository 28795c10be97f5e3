//! From the kernel's first user instruction to an open channel: drivers, a root that can be pivoted away
//! from, the kernel's own file systems.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_guest::protocol;
use cata_sys::mount::{self, Filesystem};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// What could not be done before the host could be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// A system call.
    #[error("cannot {0}: {1}")]
    System(String, io::Error),
    /// The port did not appear.
    #[error("the host's port `{port}` did not appear; drivers that failed: {0}", port = protocol::PORT)]
    NoPort(String),
    /// The other end does not keep to the protocol.
    #[error("the host spoke nonsense: {0}")]
    Protocol(#[from] protocol::ProtocolError),
    /// The channel closed.
    #[error("the host hung up")]
    Gone,
}

/// For `map_err`.
pub(crate) fn failed<E: Into<io::Error>>(what: impl ToString) -> impl FnOnce(E) -> BootError {
    move |error| BootError::System(what.to_string(), error.into())
}

/// A line in the kernel's log, which the host keeps.
pub(crate) fn say(text: &str) {
    let opened = File::options().write(true).open("/dev/kmsg");
    let done = opened.and_then(|mut log| writeln!(log, "<3>{text}"));
    if done.is_err() {
        // No kernel log: the console, if there is one.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Where drivers are in the initial file system, named in the order they are loaded.
const MODULES: &str = "/modules";

/// Loads every driver; returns those that could not be, and why.
///
/// Each file is removed afterwards: the initial file system is memory.
pub(crate) fn load_drivers() -> Vec<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(MODULES).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut failures = Vec::new();
    for file in files {
        let loaded = File::open(&file).map_err(|error| error.to_string()).and_then(|module| {
            match rustix::system::finit_module(&module, c"", 0) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(io::Error::from(error).to_string()),
            }
        });
        if let Err(why) = loaded {
            failures.push(format!("{}: {why}", file.file_name().unwrap_or_default().to_string_lossy()));
        }
        let _ = fs::remove_file(&file);
    }
    failures
}

/// The initial file system can neither be unmounted nor pivoted away from: a tmpfs over it can.
pub(crate) fn move_to_tmpfs() -> Result<(), BootError> {
    fs::create_dir_all("/new").map_err(failed("make /new"))?;
    mount_at("tmpfs", "guest", Path::new("/new"), &[("mode", "755"), ("size", "16m")], 0)?;
    let new = open("/new", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open /new"))?;
    rustix::process::fchdir(&new).map_err(failed("enter /new"))?;
    rustix::mount::mount_move(".", "/").map_err(failed("move the root"))?;
    rustix::process::chroot(".").map_err(failed("change the root"))?;
    rustix::process::chdir("/").map_err(failed("enter the root"))
}

/// `/proc`, `/sys`, `/dev` and the cgroups.
pub(crate) fn mount_kernels_own() -> Result<(), BootError> {
    for (fstype, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("cgroup2", "/sys/fs/cgroup")]
    {
        fs::create_dir_all(target).map_err(failed(format!("make {target}")))?;
        mount_at(fstype, fstype, Path::new(target), &[], 0)?;
    }
    fs::create_dir_all("/tmp").map_err(failed("make /tmp"))
}

/// A new file system somewhere.
pub(crate) fn mount_at(
    fstype: &str,
    source: &str,
    target: &Path,
    options: &[(&str, &str)],
    attributes: u64,
) -> Result<(), BootError> {
    let subject = || format!("mount {fstype} on {}", target.display());
    let filesystem = Filesystem::open(fstype).map_err(failed(subject()))?;
    filesystem.set("source", source.as_bytes()).map_err(failed(subject()))?;
    for (key, value) in options {
        filesystem.set(key, value.as_bytes()).map_err(failed(subject()))?;
    }
    let tree = filesystem.mount(attributes).map_err(failed(subject()))?;
    let at = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed(subject()))?;
    mount::attach(tree.as_fd(), at.as_fd()).map_err(failed(subject()))
}

/// How long the port may take to appear after its driver was loaded.
const PORT_PATIENCE: u32 = 30_000;

/// The port to the host, not blocking.
pub(crate) fn open_port(failures: &[String]) -> Result<OwnedFd, BootError> {
    for _ in 0..PORT_PATIENCE {
        if let Some(device) = find_port() {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match open(&device, flags, Mode::empty()) {
                Ok(port) => return Ok(port),
                // The node follows the name.
                Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {}
                Err(error) => return Err(failed(format!("open {}", device.display()))(error)),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(BootError::NoPort(if failures.is_empty() { "none".to_owned() } else { failures.join("; ") }))
}

fn find_port() -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == protocol::PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
