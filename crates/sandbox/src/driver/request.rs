//! What clients ask for, turned into events or answered at once.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::connection::ENGINE;
use super::notify::{Awaited, Waiter};
use super::{Driver, NO_STREAMS};
use crate::launch::Go;
use crate::protocol::{Call, Failure, FailureKind, NetworkChange, Reply, Request, Streams, Until};
use crate::state::{Phase, Rejected, What};

impl Driver {
    pub(super) fn handle(&mut self, connection: u32, call: Call, fds: Vec<OwnedFd>) {
        let number = call.number;
        let waiter = |awaited| Waiter { connection, number, awaited };
        let done = match call.request {
            Request::Go { go, attach } => {
                if let Err(failure) = self.go(connection, number, *go, fds, attach) {
                    self.fail(connection, number, failure);
                }
                return;
            }
            Request::Stop { signal, timeout } => {
                let ignored = self.ignores(signal.unwrap_or(self.state.rules.stop_signal));
                let what = What::Stop { signal, timeout: timeout.map(seconds), ignored };
                return self.feed_and_wait(what, waiter(Awaited::Stopped { ignored }));
            }
            Request::Restart { timeout } => {
                let ignored = self.ignores(self.state.rules.stop_signal);
                let what = What::Restart { timeout: timeout.map(seconds), ignored };
                return self.feed_and_wait(what, waiter(Awaited::Restarted));
            }
            Request::Wait { until } => return self.wait(waiter(Awaited::Ended(until))),
            Request::Kill { signal } if !(1..=64).contains(&signal) => {
                Err(Failure::new(FailureKind::Invalid, format!("{signal} is not a signal")))
            }
            Request::Kill { signal } if self.kills_boot(signal) => {
                self.event(What::Stop { signal: None, timeout: None, ignored: false })
            }
            Request::Kill { signal } => self.event(What::Kill(signal)),
            Request::Pause => self.pause(),
            Request::Unpause => self.event(What::Unpause),
            Request::SetName { name } => {
                self.tell_by_name(name);
                Ok(())
            }
            Request::SetRestart { policy } => self.event(What::SetPolicy(policy)),
            Request::SetLimits { cgroup } => {
                let limited = self.cage.limit(cgroup);
                limited.map_err(|message| Failure::new(FailureKind::Invalid, message))
            }
            Request::SetMemory { bytes } => self.set_machine_memory(bytes),
            Request::Attach { streams } => return self.attach_client(connection, number, streams),
            Request::Resize { size } => match self.output.terminal() {
                Some(terminal) => resize(terminal, size).inspect(|()| self.tell_resize(size)),
                None => Err(Failure::new(FailureKind::State, "container has no terminal")),
            },
            Request::Exec(exec) => {
                if let Err(failure) = self.exec(connection, number, *exec, fds) {
                    self.fail(connection, number, failure);
                }
                return;
            }
            Request::Connect => match self.connect_to_guest() {
                Ok(stream) => return self.answer(connection, number, Reply::Connected, vec![stream]),
                Err(failure) => Err(failure),
            },
            Request::Network => match self.network_namespace() {
                Ok(namespace) => return self.answer(connection, number, Reply::Network, vec![namespace]),
                Err(failure) => Err(failure),
            },
            Request::SetNetwork(change) => self.set_network(*change, fds),
            Request::ExecResize { id, size } => self.resize_session(&id, size),
            Request::ExecInspect { id } => {
                let reply = match self.session_state(&id) {
                    Ok((pid, exit_code)) => Reply::ExecState { pid, exit_code },
                    Err(failure) => Reply::Failed(failure),
                };
                return self.answer(connection, number, reply, Vec::new());
            }
        };
        let reply = match done {
            Ok(()) => Reply::Done,
            Err(failure) => Reply::Failed(failure),
        };
        self.answer(connection, number, reply, Vec::new());
    }

    /// An event whose success is its having been performed.
    fn event(&mut self, what: What) -> Result<(), Failure> {
        self.failure = None;
        self.feed(what)?;
        self.failure.take().map_or(Ok(()), Err)
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.failure = None;
        self.feed(What::Pause)?;
        let Some(failure) = self.failure.take() else { return Ok(()) };
        // The machine believed it, the kernel refused: back, and thawed as far as it was frozen.
        let _ = self.feed(What::Unpause);
        self.failure = None;
        Err(failure)
    }

    /// An event whose success is a milestone later on.
    fn feed_and_wait(&mut self, what: What, waiter: Waiter) {
        let (connection, number) = (waiter.connection, waiter.number);
        self.failure = None;
        self.waiters.push(waiter);
        if let Err(rejected) = self.feed(what) {
            self.forget_waiter(connection, number);
            self.fail(connection, number, rejected.into());
        } else if let Some(failure) = self.failure.take() {
            // A stop signal that is no signal; the deadline will end it all the same.
            self.complain(&failure.message);
        }
    }

    fn wait(&mut self, waiter: Waiter) {
        self.waiters.push(waiter);
        if let Phase::Exited { .. } = self.state.phase {
            self.answer_ended();
        }
    }

    fn attach_client(&mut self, connection: u32, number: u32, streams: Streams) {
        let attached =
            if self.state.pid().is_some() { self.attach(streams) } else { Err(Rejected::NotRunning.into()) };
        match attached {
            Ok((streams, fds)) => {
                let reply = Reply::Attached { streams, terminal: self.terminal };
                self.answer(connection, number, reply, fds);
            }
            Err(failure) => self.fail(connection, number, failure),
        }
    }

    fn go(
        &mut self,
        connection: u32,
        number: u32,
        go: Go,
        fds: Vec<OwnedFd>,
        attach: Option<Streams>,
    ) -> Result<(), Failure> {
        let invalid = |text: &str| Failure::new(FailureKind::Invalid, text);
        if connection != ENGINE {
            return Err(invalid("only who started a supervisor may let it go"));
        }
        if !matches!(self.state.phase, Phase::Created) {
            return Err(Rejected::AlreadyStarted.into());
        }
        let mut fds = fds.into_iter();
        // First of all: what exists must be undone whatever happens from here on.
        self.undo_network(go.undo);
        self.network_endings = go.endings;
        if go.network_namespace {
            self.network = Some(fds.next().ok_or_else(|| invalid("no network namespace came along"))?);
        }
        if go.user_namespace {
            self.users = Some(fds.next().ok_or_else(|| invalid("no user namespace came along"))?);
        }
        if go.own_network {
            let own = fds.next().ok_or_else(|| invalid("no network of the supervisor's came along"))?;
            move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|errno| {
                Failure::new(FailureKind::System, format!("cannot enter the user's network: {errno}"))
            })?;
        }
        let sockets: Vec<OwnedFd> = fds.by_ref().take(go.service_sockets).collect();
        if sockets.len() != go.service_sockets {
            return Err(invalid("fewer sockets of services than announced"));
        }
        let machine: Vec<OwnedFd> = fds.by_ref().take(go.machine).collect();
        if machine.len() != go.machine {
            return Err(invalid("fewer descriptors of a machine than announced"));
        }
        self.links = super::vm::Links { descriptors: machine, links: go.links, memory: None };
        self.held = fds.collect();
        if let Some(plan) = go.service_plan {
            self.start_service(plan, sockets)?;
        }
        let mut streams = NO_STREAMS;
        let mut attached = Vec::new();
        let wanted = attach.unwrap_or(NO_STREAMS);
        if attach.is_some() {
            // Output before the process exists, so that its first byte is not missed; input after.
            (streams, attached) = self.attach(Streams { stdin: false, ..wanted })?;
        }
        self.waiters.push(Waiter {
            connection,
            number,
            awaited: Awaited::Started { stdin: wanted.stdin, streams, fds: attached },
        });
        if let Err(rejected) = self.feed(What::Go) {
            self.forget_waiter(connection, number);
            return Err(rejected.into());
        }
        Ok(())
    }

    fn network_namespace(&self) -> Result<OwnedFd, Failure> {
        let network = self.network.as_ref().filter(|_| !self.is_over()).ok_or(Rejected::NotRunning)?;
        network.try_clone().map_err(|error| Failure::new(FailureKind::System, error.to_string()))
    }

    /// Whether it has ended for good: there is nothing left to change.
    fn is_over(&self) -> bool {
        matches!(self.state.phase, Phase::Created | Phase::Exited { .. })
    }

    fn set_network(&mut self, change: NetworkChange, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        if self.is_over() {
            return Err(Rejected::NotRunning.into());
        }
        let mut fds = fds.into_iter();
        let sockets: Vec<OwnedFd> = fds.by_ref().take(change.service_sockets).collect();
        if let Some(plan) = change.service_plan {
            match &mut self.service {
                Some(service) => service
                    .change(plan, sockets)
                    .map_err(|message| Failure::new(FailureKind::System, message))?,
                None => self.start_service(plan, sockets)?,
            }
        }
        self.held.extend(fds);
        self.undo_network(change.undo);
        self.network_endings = change.endings;
        Ok(())
    }

    fn forget_waiter(&mut self, connection: u32, number: u32) {
        self.waiters.retain(|waiter| (waiter.connection, waiter.number) != (connection, number));
    }

    pub(super) fn answer_ended(&mut self) {
        self.answer_waiters(|awaited| matches!(awaited, Awaited::Ended(Until::NextExit | Until::NotRunning)));
    }
}

/// Seconds as typed; a negative number is for ever.
fn seconds(timeout: i64) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_secs)
}

pub(super) fn resize(terminal: &OwnedFd, size: cata_runtime::plan::WindowSize) -> Result<(), Failure> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size)
        .map_err(|error| Failure::new(FailureKind::System, std::io::Error::from(error).to_string()))
}
