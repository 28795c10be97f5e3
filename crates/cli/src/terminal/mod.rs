//! The client's end of a container's streams: raw mode, window size, detach keys, signals, copying.
//!
//! The supervisor hands out descriptors; from then on bytes go between them and our own standard streams
//! without another process in between.

pub(crate) mod copy;
pub(crate) mod detach;
pub(crate) mod raw;
pub(crate) mod signals;

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::render::error::Failure;
use detach::Keys;

/// A container's streams, as given by the engine.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Where input goes.
    pub(crate) input: Option<OwnedFd>,
    /// Where output comes from.
    pub(crate) output: Option<OwnedFd>,
    /// Where errors come from.
    pub(crate) errors: Option<OwnedFd>,
    /// The container has a terminal: its master side, for sizes.
    pub(crate) window: Option<OwnedFd>,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The container's side closed.
    Ended,
    /// The user typed the detach keys.
    Detached,
}

/// What a conversation heeds.
pub(crate) struct Manners<'a> {
    /// What detaches; empty: nothing does.
    pub(crate) keys: &'a Keys,
    /// Called for each signal we get, unless `--sig-proxy=false`.
    pub(crate) forward: Option<Box<dyn Fn(i32) + Send>>,
}

/// Refuses `-it` when our own input is no terminal, in Docker's words.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Result<(), Failure> {
    if attach_stdin && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("the input device is not a TTY")
            .with_hint("leave out -t, or run it in a terminal"));
    }
    Ok(())
}

/// Rows and columns of our own terminal, if there is one.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Talks until either side has enough; `ended` becomes readable when the process is over.
///
/// Signals go on being forwarded after the return, until the process ends: the caller still waits for the
/// container's exit code.
pub(crate) fn converse(link: Link, manners: Manners<'_>, ended: BorrowedFd<'_>) -> Result<Parting, Failure> {
    let tty = link.window.is_some();
    let raw = if tty && link.input.is_some() { raw::enter() } else { None };
    let window = link.window.as_ref().map(OwnedFd::try_clone).transpose();
    let window = window.map_err(|e| Failure::io("duplicate the terminal", &e))?;
    if let Some(window) = &window {
        signals::resize(window.as_fd());
    }
    signals::watch(manners.forward, window)?;
    // Without raw mode no key can mean anything special.
    let none = Keys::default();
    let keys = if raw.is_some() { manners.keys } else { &none };
    let parting = copy::run(link, keys, ended);
    drop(raw);
    parting
}
