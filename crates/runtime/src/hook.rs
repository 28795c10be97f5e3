//! Running a hook: a program of the host (or of the container) that reads the container's state.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// As much of what a failing hook said is told.
const WORDS_BYTES_MAX: usize = 4096;

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the name of the program; empty: its path.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds until it is killed and has failed.
    pub timeout: Option<u32>,
}

/// The hooks that a new process runs itself; the others are its caller's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// There are `prestart` or `createRuntime` hooks: the caller runs them, this process waits for it.
    pub runtime: bool,
    /// In the container's namespaces, before the root changes.
    pub create_container: Vec<Hook>,
    /// In the container, before its program.
    pub start_container: Vec<Hook>,
}

impl Hooks {
    /// Whether the caller is asked at all before the root changes.
    pub(crate) fn before_root(&self) -> bool {
        self.runtime || !self.create_container.is_empty()
    }
}

impl Hook {
    /// Runs it with `state` on its standard input, and waits for it.
    ///
    /// # Errors
    /// In words: which hook, of which `kind`, and what it said.
    pub fn run(&self, kind: &str, state: &[u8]) -> Result<(), String> {
        let failed = |what: &dyn std::fmt::Display| format!("{kind} hook `{}`: {what}", self.path.display());
        let input = file(state).map_err(|e| failed(&e))?;
        self.run_with(kind, input.into())
    }

    /// The same with an open file of the state.
    ///
    /// # Errors
    /// As [`Hook::run`].
    pub fn run_with(&self, kind: &str, state: OwnedFd) -> Result<(), String> {
        let failed = |what: &dyn std::fmt::Display| format!("{kind} hook `{}`: {what}", self.path.display());
        // Files, not pipes: nobody has to read while the hook runs.
        let mut words = file(b"").map_err(|e| failed(&e))?;
        let output = || words.try_clone().map(Stdio::from);
        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.args.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear();
        for variable in &self.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            command.env(name, value);
        }
        command.stdin(Stdio::from(state));
        command.stdout(output().map_err(|e| failed(&e))?).stderr(output().map_err(|e| failed(&e))?);
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let mut expired = false;
        if let Some(seconds) = self.timeout {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
            if let Some(pidfd) = pidfd {
                let limit = Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
                let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
                expired = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&limit))) == Ok(0);
                if expired {
                    // It may have ended this very moment.
                    let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
        }
        let status = child.wait().map_err(|e| failed(&e))?;
        if expired {
            let seconds = self.timeout.unwrap_or_default();
            return Err(failed(&format!("did not end within {seconds} s")));
        }
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        // What it said is a help, not what failed.
        let _ = words.seek(SeekFrom::Start(0));
        let _ = (&words).take(WORDS_BYTES_MAX as u64).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        Err(failed(&format!("{status}: {}", text.trim()).trim_end_matches([':', ' '])))
    }
}

/// A file in memory, at its beginning.
fn file(text: &[u8]) -> std::io::Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// The container's state for somebody else to read.
pub(crate) fn sealed(state: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    file(state)
        .map(OwnedFd::from)
        .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
}

/// Runs all of them, each with the state from its beginning.
pub(crate) fn all(kind: &str, hooks: &[Hook], state: &OwnedFd) -> Result<(), String> {
    let mut text = Vec::new();
    let copy = state.as_fd().try_clone_to_owned().map_err(|e| format!("{kind} hooks: {e}"))?;
    std::fs::File::from(copy).read_to_end(&mut text).map_err(|e| format!("{kind} hooks: {e}"))?;
    hooks.iter().try_for_each(|hook| hook.run(kind, &text))
}
