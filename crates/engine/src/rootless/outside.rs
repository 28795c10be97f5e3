//! The way out of the user's network: `slirp4netns`, one for all of his containers, started by whoever connects a
//! container and finds none.
//!
//! It holds the lock of [`LOCK`] for as long as it lives, and ends with the holder of the namespaces.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cata_sandbox::hold;
use cata_sys::detach;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::namespaces::Held;

/// Beneath `<state>/user/`.
const LOCK: &str = "slirp4netns";
/// How long it may take: it waits for nobody but a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where it is looked for when `PATH` says nothing.
const USUAL: &str = "/usr/local/bin:/usr/bin:/bin";

/// A way out in the making, or one that is there or not needed.
#[derive(Debug, Default)]
pub(crate) struct Opening(Option<OwnedFd>);

/// Begins to make it, if there is none. Descriptors: 3 is what ends it, 4 says that it is ready, 5 is its lock.
///
/// # Errors
/// In words: what is missing.
pub(crate) fn open_up(held: &Held) -> Result<Opening, String> {
    let failed = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let path = held.directory().join(LOCK);
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(failed("open the lock of slirp4netns"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Opening(None)),
        Err(error) => return Err(format!("lock slirp4netns: {error}")),
    }
    let program = find("slirp4netns").ok_or("slirp4netns is not installed (Debian package slirp4netns)")?;
    let device = Path::new("/dev/net/tun");
    File::options()
        .read(true)
        .write(true)
        .open(device)
        .map_err(|e| format!("open {}: {e}", device.display()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let end = open(held.directory().join(hold::OUTSIDE), flags, Mode::empty())
        .map_err(|e| format!("open a pipe of the user's namespaces: {e}"))?;
    let (ready, says) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| format!("make a pipe: {e}"))?;
    let network = held.network_path();
    let network = network.to_string_lossy();
    let words = [
        "--configure",
        "--mtu=65520",
        // What listens on the host's loopback only is the host's own.
        "--disable-host-loopback",
        "--enable-sandbox",
        "--enable-seccomp",
        "--exit-fd=3",
        "--ready-fd=4",
        "--netns-type=path",
        &network,
        "tap0",
    ];
    detach::spawn(&program, &words, &[end.as_fd(), says.as_fd(), lock.as_fd()])
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    Ok(Opening(Some(ready)))
}

/// Waits until the one of a holder that is gone has gone too: it might be found on its way out, and taken for one
/// that stays.
pub(super) fn wait_for_end(directory: &Path) {
    let Ok(lock) = File::open(directory.join(LOCK)) else { return };
    let begun = Instant::now();
    while flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
        && begun.elapsed() < PATIENCE
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Opening {
    /// Waits until it is there.
    ///
    /// # Errors
    /// In words: it ended, or took too long.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Some(ready) = self.0 else { return Ok(()) };
        let patience = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(30), tv_nsec: 0 };
        let mut watched = [PollFd::new(&ready, PollFlags::IN)];
        let came = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&patience)));
        if came.is_ok_and(|came| came == 0) {
            return Err("slirp4netns does not become ready".to_owned());
        }
        let mut byte = [0];
        match File::from(ready).read(&mut byte) {
            Ok(1) => Ok(()),
            _ => Err("slirp4netns ended before it was ready".to_owned()),
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL.into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
