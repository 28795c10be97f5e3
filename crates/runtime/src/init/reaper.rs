//! `--init`: PID 1 that starts the payload, hands signals on to it, and reaps.
//!
//! It has been locked down like the payload, has the same user, and holds no descriptor. It is not dumpable,
//! so that the payload cannot look into what it is a copy of.

use cata_sys::clone::SoleThread;
use cata_sys::title::Title;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use super::label::Labels;
use crate::error::Stage;
use crate::handshake::Failure;

/// What the division needs.
pub(super) struct Reaper {
    pub(super) proof: SoleThread,
    pub(super) title: Title,
}

impl Reaper {
    /// Divides this process: the reaper never returns, the payload does. All signals are blocked.
    pub(super) fn divide(self, terminal: bool, labels: &Labels) -> Result<(), Failure> {
        let failed = || Failure::at(Stage::Reaper, "");
        // A change of ids has set it to the host's default.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed())?;
        // In somebody else's pid namespace orphans would go to that one's first process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed())?;
        // Only for whoever lists processes; the caller's arguments are paths of the host. Before the payload
        // can look: its own come with its program.
        let _ = rustix::thread::set_name(c"cata-init");
        self.title.replace("cata-init");
        let payload = cata_sys::clone::fork(self.proof).map_err(failed())?;
        if let Some(payload) = payload {
            // Not before: what is confined may be kept from becoming what the payload is to be.
            labels.set_now()?;
            cata_sys::program::forsake(payload, reap);
        }
        rustix::process::setpgid(None, None).map_err(failed())?;
        if terminal {
            // In the foreground, so that it may read and gets the keys' signals.
            let group = rustix::process::getpgrp();
            rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group).map_err(failed())?;
        }
        Ok(())
    }
}

/// Until the payload ends. Returns its code as a shell would.
fn reap(payload: Pid) -> i32 {
    loop {
        let Ok(signal) = cata_sys::disposition::wait() else { continue };
        if signal != Signal::CHILD.as_raw() {
            // It may just have ended.
            let _ = cata_sys::disposition::send(payload, signal);
            continue;
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == payload => {
                    return status
                        .exit_status()
                        .or(status.terminating_signal().map(|s| 128 + s))
                        .unwrap_or(1);
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
}
