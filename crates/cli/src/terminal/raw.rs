//! Raw mode of our own terminal, undone on every way out: return, panic, signals.

use std::io::IsTerminal as _;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the terminal was before, while it is raw. A panic aborts in release builds, so that no destructor
/// runs: the panic hook must find it here.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode lasts as long as this.
#[derive(Debug)]
pub(crate) struct RawMode(());

/// Makes standard input raw; `None` when it is no terminal.
pub(crate) fn enter() -> Option<RawMode> {
    change(Termios::make_raw)
}

/// What is typed is not shown and comes byte by byte, Ctrl-C too: who reads a password must be able to put the
/// terminal right before leaving. `None` when standard input is no terminal.
pub(crate) fn silence() -> Option<RawMode> {
    change(|mode| mode.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG))
}

fn change(how: impl FnOnce(&mut Termios)) -> Option<RawMode> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    let before = tcgetattr(&stdin).ok()?;
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
    let mut raw = before.clone();
    how(&mut raw);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    if tcsetattr(&stdin, OptionalActions::Now, &raw).is_err() {
        restore();
        return None;
    }
    Some(RawMode(()))
}

/// Undoes raw mode if there is any.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // The terminal may be gone: then there is nothing to undo.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}
