//! Standing in front of a process until it ends: signals go on to it, its terminal is shown on ours.

use std::os::fd::{AsFd, BorrowedFd};

use cata_runtime::Spawned;
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::console::{self, Raw};
use crate::error::{Error, Result};
use crate::signal;

/// Signals that go on to the process: all that can be taken but those a fault in this program raises.
fn forwarded() -> Vec<i32> {
    let own = [4, 5, 7, 8, 11, signal::KILL, 19, 31];
    (1..=64).filter(|number| !own.contains(number) && !matches!(number, 32 | 33)).collect()
}

/// Signals from before the process is made, so that none is lost.
#[derive(Debug)]
pub(crate) struct Front(SignalFd);

impl Front {
    pub(crate) fn new() -> Result<Self> {
        SignalFd::new(&forwarded()).map(Self).map_err(|e| Error::new(format!("watch signals: {e}")))
    }

    /// Until the process ends: its exit code, as a shell would say it.
    pub(crate) fn stand(&self, spawned: &Spawned) -> Result<u8> {
        let raw = spawned.terminal.as_ref().and_then(|master| {
            console::resize(master.as_fd());
            Raw::enter()
        });
        let master = spawned.terminal.as_ref().map(AsFd::as_fd);
        let mut input = master.is_some();
        let mut output = master.is_some();
        let mut code = None;
        while code.is_none() || output {
            let quiet = code.is_some();
            let (readable, from_input, from_master) =
                ready(self.0.as_fd(), input && !quiet, master.filter(|_| output), quiet)?;
            if readable {
                while let Some(number) = self.0.next() {
                    match number {
                        signal::CHILD => code = code.or(reap(spawned.pid)?),
                        signal::WINDOW if master.is_some() => master.into_iter().for_each(console::resize),
                        _ => {
                            cata_sys::pidfd::signal(spawned.pidfd.as_fd(), number)
                                .map_err(|e| Error::new(format!("pass signal {number} on: {e}")))?;
                        }
                    }
                }
            }
            if let Some(master) = master {
                if from_input && input {
                    input = copy(rustix::stdio::stdin(), master);
                }
                if from_master && output {
                    output = copy(master, rustix::stdio::stdout());
                } else if quiet {
                    // It has ended and there is nothing more to read.
                    output = false;
                }
            }
        }
        drop(raw);
        Ok(code.unwrap_or(1))
    }
}

fn ready(
    signals: BorrowedFd<'_>,
    input: bool,
    master: Option<BorrowedFd<'_>>,
    quiet: bool,
) -> Result<(bool, bool, bool)> {
    let mut watched = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
    if let Some(master) = master {
        watched.push(PollFd::from_borrowed_fd(master, PollFlags::IN));
        if input {
            watched.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
    }
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = rustix::io::retry_on_intr(|| poll(&mut watched, quiet.then_some(&now)));
    polled.map_err(|e| Error::new(format!("wait for the process: {e}")))?;
    let some = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok((some(0), some(2), some(1)))
}

/// `false`: there is no more to come.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut bytes = [0u8; 8192];
    let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut bytes)) else {
        return false;
    };
    let mut left = &bytes[..length];
    while !left.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, left)) {
            Ok(written) => left = &left[written..],
            Err(_) => return false,
        }
    }
    true
}

/// Every child that has ended; the code of the one that is waited for. Others come from containers without a
/// pid namespace, when this process takes orphans in.
fn reap(process: Pid) -> Result<Option<u8>> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == process => code = Some(exit_code(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(errno) => return Err(Error::new(format!("wait for the process: {errno}"))),
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}
