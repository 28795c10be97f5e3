//! Who waits for what, and telling them.

use std::os::fd::OwnedFd;

use super::Driver;
use crate::protocol::{FAREWELL, Failure, FailureKind, Reply, Streams, Until};
use crate::state::{Exit, Milestone, Phase};

/// A call that is answered later.
pub(super) struct Waiter {
    pub(super) connection: u32,
    pub(super) number: u32,
    pub(super) awaited: Awaited,
}

pub(super) enum Awaited {
    /// `Go`: the process runs.
    Started { stdin: bool, streams: Streams, fds: Vec<OwnedFd> },
    /// `Restart`.
    Restarted,
    /// `Stop`.
    Stopped { ignored: bool },
    /// `Wait`.
    Ended(Until),
}

impl Driver {
    pub(super) fn notify(&mut self, milestone: Milestone) {
        self.tell_milestone(milestone);
        match milestone {
            Milestone::Running => self.notify_running(),
            Milestone::StartFailed => {
                let failure = self.failure.take().unwrap_or_else(|| {
                    let message = self.last_exit().error.unwrap_or_default();
                    Failure::new(FailureKind::Start, message)
                });
                for waiter in std::mem::take(&mut self.waiters) {
                    match waiter.awaited {
                        Awaited::Ended(_) => self.waiters.push(waiter),
                        // It is down, which is what was asked.
                        Awaited::Stopped { .. } => {
                            let exit_code = failure.exit_code;
                            let reply = Reply::Stopped { exit_code, ignored_signal: false };
                            self.answer(waiter.connection, waiter.number, reply, Vec::new());
                        }
                        _ => self.fail(waiter.connection, waiter.number, failure.clone()),
                    }
                }
                self.answer_ended();
            }
            Milestone::RestartFailed => {
                let restarts = self.take_waiters(|awaited| matches!(awaited, Awaited::Restarted));
                if let Some(failure) = &self.failure {
                    let failure = failure.clone();
                    for waiter in restarts {
                        self.fail(waiter.connection, waiter.number, failure.clone());
                    }
                }
            }
            Milestone::ProcessEnded => {
                self.answer_waiters(|awaited| matches!(awaited, Awaited::Ended(Until::NextExit)));
            }
            Milestone::Down => {
                let restarts = self.take_waiters(|awaited| matches!(awaited, Awaited::Restarted));
                for waiter in restarts {
                    let failure = Failure::new(FailureKind::State, "the container was stopped meanwhile");
                    self.fail(waiter.connection, waiter.number, failure);
                }
                self.answer_waiters(|awaited| matches!(awaited, Awaited::Stopped { .. }));
                self.answer_ended();
            }
            Milestone::Undying => {
                let stops = self
                    .take_waiters(|awaited| matches!(awaited, Awaited::Stopped { .. } | Awaited::Restarted));
                for waiter in stops {
                    let message = "the process was killed and does not end: it is stuck in the kernel";
                    let failure = Failure::new(FailureKind::Undying, message);
                    self.fail(waiter.connection, waiter.number, failure);
                }
            }
        }
    }

    fn notify_running(&mut self) {
        let waiters =
            self.take_waiters(|awaited| matches!(awaited, Awaited::Started { .. } | Awaited::Restarted));
        let Some(pid) = self.state.pid() else { return };
        for waiter in waiters {
            let withheld = self.status.withheld.clone();
            let (streams, fds) = match waiter.awaited {
                Awaited::Started { stdin, mut streams, mut fds } => {
                    let only = Streams { stdin, stdout: false, stderr: false };
                    if let Ok((given, input)) = self.attach(only) {
                        streams.stdin = given.stdin;
                        fds.splice(0..0, input);
                    }
                    (streams, fds)
                }
                _ => (super::NO_STREAMS, Vec::new()),
            };
            let boot = self.machine.as_ref().and_then(|machine| machine.boot);
            let reply = Reply::Running { pid: pid.0, withheld, streams, boot };
            self.answer(waiter.connection, waiter.number, reply, fds);
        }
    }

    pub(super) fn somebody_waits(&self, which: impl Fn(&Awaited) -> bool) -> bool {
        self.waiters.iter().any(|waiter| which(&waiter.awaited))
    }

    fn take_waiters(&mut self, which: impl Fn(&Awaited) -> bool) -> Vec<Waiter> {
        let (taken, kept) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| which(&waiter.awaited));
        self.waiters = kept;
        taken
    }

    pub(super) fn answer_waiters(&mut self, which: impl Fn(&Awaited) -> bool) {
        let exit = self.last_exit();
        for waiter in self.take_waiters(which) {
            let reply = match waiter.awaited {
                Awaited::Stopped { ignored } => {
                    Reply::Stopped { exit_code: exit.code, ignored_signal: ignored && exit.code == 137 }
                }
                _ => ended(&exit),
            };
            self.answer(waiter.connection, waiter.number, reply, Vec::new());
        }
    }

    /// The last word to everybody who is still connected.
    pub(super) fn say_farewell(&mut self) {
        self.answer_waiters(|_| true);
        let exit = self.last_exit();
        for id in self.connections.ids() {
            self.answer(id, FAREWELL, ended(&exit), Vec::new());
        }
    }

    fn last_exit(&self) -> Exit {
        match &self.state.phase {
            Phase::Exited { exit } | Phase::Backoff { exit, .. } | Phase::Draining { exit, .. } => {
                exit.clone()
            }
            // Between two runs of a restart: the status still holds the last end.
            _ => Exit { code: self.status.exit_code, oom: self.status.oom_killed, error: None },
        }
    }
}

fn ended(exit: &Exit) -> Reply {
    Reply::Exited { exit_code: exit.code, error: exit.error.clone(), oom_killed: exit.oom }
}
