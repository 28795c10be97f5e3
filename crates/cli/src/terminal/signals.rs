//! Signals of the foreground client: passed on to the container, and new window sizes to its terminal.
//!
//! A thread of its own receives them, so that neither copying nor waiting for the exit code needs to know.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::termios::{tcgetwinsize, tcsetwinsize};
use signal_hook::consts::signal::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::Signals;

use super::raw;
use crate::render::error::Failure;

/// Signals that reach the container as they reach us.
const FORWARDED: [i32; 8] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT];
/// Signals that end us when they are not forwarded: the terminal must be restored first.
const DEADLY: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Watches from now on until the process ends.
pub(crate) fn watch(
    forward: Option<Box<dyn Fn(i32) + Send>>,
    window: Option<OwnedFd>,
) -> Result<(), Failure> {
    let mut wanted: Vec<i32> = if forward.is_some() { FORWARDED.to_vec() } else { Vec::new() };
    if window.is_some() {
        wanted.push(SIGWINCH);
        if forward.is_none() {
            wanted.extend(DEADLY);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut signals = Signals::new(wanted).map_err(|e| Failure::io("watch signals", &e))?;
    let watcher = move || {
        for signal in signals.forever() {
            match (signal, &forward, &window) {
                (SIGWINCH, _, Some(window)) => resize(window.as_fd()),
                (signal, Some(forward), _) => forward(signal),
                (signal, None, _) => {
                    raw::restore();
                    std::process::exit(128 + signal);
                }
            }
        }
    };
    // An ordinary stack: passing a signal on speaks to the supervisor, and untouched pages cost nothing.
    let builder = std::thread::Builder::new().name("signals".to_owned());
    builder.spawn(watcher).map(|_| ()).map_err(|e| Failure::io("watch signals", &e))
}

/// Gives the container's terminal the size of ours.
pub(crate) fn resize(window: BorrowedFd<'_>) {
    // Without a terminal of our own there is no size; a container that just ended needs none.
    if let Ok(size) = tcgetwinsize(std::io::stdout()) {
        let _ = tcsetwinsize(window, size);
    }
}
