//! Other people's daemons inside a world.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::command::{PATIENCE, Run, Running, eventually};
use crate::world::pids;

/// A daemon that listens at a socket, ended with this.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    /// Started by the daemon, as a session of their own.
    helpers: &'static [&'static str],
}

impl Daemon {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it ends instead, or takes too long.
    #[must_use]
    pub fn start(run: Run, socket: &str, helpers: &'static [&'static str]) -> Self {
        let mut this = Self { running: run.start(), helpers };
        eventually(socket, PATIENCE, || {
            assert!(this.running.poll().is_none(), "it has ended: {}", this.running.stderr());
            UnixStream::connect(socket).ok()
        });
        this
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.running.signal(Signal::TERM);
        for _ in 0..200 {
            if self.running.poll().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for pid in pids() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if self.helpers.contains(&name.trim())
                && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}
