//! Exec sessions: more processes in the container. Their standard streams are the client's own descriptors or
//! a terminal that the client receives, so that nothing is copied here.

use std::os::fd::{AsFd as _, OwnedFd};

use cata_runtime::plan::WindowSize;
use cata_runtime::{ExecPlan, Handles};
use rustix::io::Errno;

use super::reactor::{Interest, Source};
use super::streams::{nonblocking, null};
use super::{Driver, boot, request};
use crate::protocol::{Exec, ExecStdio, Failure, FailureKind, Reply};
use crate::state::{Phase, Pid, Rejected};
use cata_guest::report::Report;

/// Most sessions that run at once.
const MOST: usize = 500;
/// Ended sessions that can still be asked for.
const REMEMBERED: usize = 32;

struct Session {
    number: u32,
    id: String,
    pid: Pid,
    /// Who is told of the end: connection and call.
    client: Option<(u32, u32)>,
    /// Whose end hangs the terminal up.
    owner: Option<u32>,
    terminal: Option<OwnedFd>,
    exit: Option<i32>,
    /// What it runs, until the journal has it.
    untold: Option<String>,
    /// In a virtual machine, until the process runs there: what says so.
    report: Option<OwnedFd>,
}

#[derive(Default)]
pub(super) struct Sessions {
    list: Vec<Session>,
    next: u32,
}

impl Driver {
    pub(super) fn exec(
        &mut self,
        connection: u32,
        number: u32,
        exec: Exec,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        match self.state.phase {
            Phase::Running { .. } => {}
            Phase::Paused { .. } => return Err(Rejected::Paused.into()),
            Phase::Stopping { .. } => return Err(Rejected::Stopping.into()),
            _ => return Err(Rejected::NotRunning.into()),
        }
        let running = self.sessions.list.iter().filter(|session| session.exit.is_none()).count();
        if running >= MOST {
            return Err(Failure::new(FailureKind::Exhausted, format!("{MOST} exec sessions are running")));
        }
        if self.sessions.list.iter().any(|session| session.id == exec.id) {
            return Err(Failure::new(FailureKind::Invalid, format!("exec session {} exists", exec.id)));
        }
        let wants_terminal = exec.stdio == ExecStdio::Terminal;
        if exec.request.terminal != wants_terminal {
            return Err(Failure::new(FailureKind::Invalid, "a terminal in one half of the request only"));
        }
        let stdio = streams(exec.stdio, fds)?;
        if self.machine.is_some() {
            return self.exec_in_guest(connection, number, exec, &stdio);
        }
        let launch = boot::read_plan(self.plan.as_fd())?;
        let command = exec.request.argv.join(" ");
        let plan = ExecPlan::new(&launch.plan, exec.request);
        drop(launch);
        let spawned = {
            let container = self.pidfd().ok_or(Rejected::NotRunning)?;
            let handles = Handles::new(stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd());
            cata_runtime::exec(&plan, container, &self.cage.enter(handles))
        };
        cata_sys::heap::trim();
        let spawned = spawned?;
        let withheld = spawned.withheld;
        let client = (connection, number);
        let session = (exec.id, command, exec.wait);
        let copy = self.remember(client, session, (spawned.pid, spawned.terminal), None);
        self.tell_session_start(self.sessions.list.len() - 1);
        let pid = spawned.pid.as_raw_nonzero().get();
        let reply = Reply::ExecStarted { pid, terminal: !copy.is_empty(), withheld };
        self.answer(connection, number, reply, copy);
        Ok(())
    }

    /// A new session in the list; what its client gets of the terminal.
    fn remember(
        &mut self,
        client: (u32, u32),
        (id, command, wait): (String, String, bool),
        (pid, terminal): (rustix::process::Pid, Option<OwnedFd>),
        report: Option<OwnedFd>,
    ) -> Vec<OwnedFd> {
        let number = self.sessions.next;
        self.sessions.next += 1;
        let mut copy = Vec::new();
        if let Some(terminal) = &terminal {
            if wait {
                copy.extend(terminal.try_clone());
            } else {
                // Nobody will read it: a full terminal would stop the process.
                nonblocking(terminal);
                let _ = self.reactor.add(terminal, Source::Session(number), Interest::Read);
            }
        }
        if let Some(report) = &report {
            nonblocking(report);
            let _ = self.reactor.add(report, Source::Report(number), Interest::Read);
        }
        self.forget_old_sessions();
        self.sessions.list.push(Session {
            number,
            id,
            pid: Pid(pid.as_raw_nonzero().get()),
            // In a guest a start that fails is told whoever waits.
            client: (wait || report.is_some()).then_some(client),
            owner: wait.then_some(client.0),
            terminal,
            exit: None,
            untold: Some(command),
            report,
        });
        copy
    }

    /// In a virtual machine a process of the host's stands for the one in the guest; whether that runs is
    /// told later.
    fn exec_in_guest(
        &mut self,
        connection: u32,
        number: u32,
        exec: Exec,
        stdio: &[OwnedFd; 3],
    ) -> Result<(), Failure> {
        let (spawned, report) = self.spawn_session(&exec.request, stdio, &["session"])?;
        let client = (connection, number);
        let wait = exec.wait;
        // The client's copy of the terminal goes with the news that there is a process.
        let session = (exec.id, exec.request.argv.join(" "), wait);
        let copy = self.remember(client, session, (spawned.pid, spawned.terminal), Some(report));
        drop(copy);
        Ok(())
    }

    /// What a session's stand-in says about the process in the guest.
    pub(super) fn read_session_report(&mut self, number: u32) {
        let Some(at) = self.sessions.list.iter().position(|s| s.number == number) else { return };
        let session = &mut self.sessions.list[at];
        let Some(report) = &session.report else { return };
        let said = match super::vm::receive(report) {
            super::vm::Said::Nothing => return,
            said => said,
        };
        self.reactor.remove(report.as_fd());
        session.report = None;
        let client = session.client;
        let reply = match said {
            super::vm::Said::This(Report::Started { withheld, .. }) => {
                let waits = session.owner.is_some();
                let copy: Vec<OwnedFd> = session
                    .terminal
                    .as_ref()
                    .filter(|_| waits)
                    .and_then(|t| t.try_clone().ok())
                    .into_iter()
                    .collect();
                if !waits {
                    session.client = None;
                }
                let reply = Reply::ExecStarted { pid: session.pid.0, terminal: !copy.is_empty(), withheld };
                self.tell_session_start(at);
                if let Some((connection, number)) = client {
                    self.answer(connection, number, reply, copy);
                }
                return;
            }
            super::vm::Said::This(Report::Failed(failed)) => super::vm::failure(failed),
            _ => Rejected::NotRunning.into(),
        };
        session.client = None;
        if let Some((connection, number)) = client {
            self.fail(connection, number, reply);
        }
    }

    fn tell_session_start(&mut self, at: usize) {
        let Some(session) = self.sessions.list.get_mut(at) else { return };
        let Some(command) = session.untold.take() else { return };
        let id = session.id.clone();
        self.tell(&format!("exec_start: {command}"), &[("execID", id)]);
    }

    fn forget_old_sessions(&mut self) {
        let mut ended = self.sessions.list.iter().filter(|session| session.exit.is_some()).count();
        self.sessions.list.retain(|session| {
            let old = session.exit.is_some() && ended > REMEMBERED;
            if old {
                ended -= 1;
            }
            !old
        });
    }

    /// A reaped process, if it was a session's.
    pub(super) fn session_ended(&mut self, pid: Pid, code: i32) {
        let found = self.sessions.list.iter_mut().find(|s| s.pid == pid && s.exit.is_none());
        let Some(number) = found.map(|session| session.number) else { return };
        // It may have said why just before.
        self.read_session_report(number);
        self.read_session_report(number);
        let found = self.sessions.list.iter_mut().find(|s| s.number == number);
        let Some(session) = found else { return };
        session.exit = Some(code);
        let (id, ran) = (session.id.clone(), session.untold.is_none());
        if let Some(terminal) = session.terminal.take() {
            self.reactor.remove(terminal.as_fd());
        }
        let client = session.client.take();
        if ran {
            self.tell("exec_die", &[("execID", id), ("exitCode", code.to_string())]);
        }
        if let Some((connection, number)) = client {
            self.answer(connection, number, Reply::ExecExited { exit_code: code }, Vec::new());
        }
    }

    /// A client left: its terminals hang up, as a real one would.
    pub(super) fn forget_client_of_sessions(&mut self, connection: u32) {
        for session in self.sessions.list.iter_mut().filter(|s| s.owner == Some(connection)) {
            session.client = None;
            session.terminal = None;
        }
    }

    /// Output of a detached session's terminal goes nowhere.
    pub(super) fn discard_session_output(&mut self, number: u32) {
        let Some(session) = self.sessions.list.iter_mut().find(|s| s.number == number) else { return };
        let Some(terminal) = &session.terminal else { return };
        let mut piece = [0_u8; 4096];
        match rustix::io::read(terminal, &mut piece) {
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                self.reactor.remove(terminal.as_fd());
                session.terminal = None;
            }
        }
    }

    pub(super) fn resize_session(&mut self, id: &str, size: WindowSize) -> Result<(), Failure> {
        let session = self.session(id)?;
        match &session.terminal {
            Some(terminal) => request::resize(terminal, size),
            None => Err(Failure::new(FailureKind::State, format!("exec session {id} has no terminal"))),
        }
    }

    pub(super) fn session_state(&self, id: &str) -> Result<(i32, Option<i32>), Failure> {
        self.session(id).map(|session| (session.pid.0, session.exit))
    }

    fn session(&self, id: &str) -> Result<&Session, Failure> {
        let found = self.sessions.list.iter().find(|session| session.id == id);
        found.ok_or_else(|| Failure::new(FailureKind::NotFound, format!("no exec session {id}")))
    }
}

/// Three descriptors from what the client passed; the rest is `/dev/null`.
fn streams(stdio: ExecStdio, fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failure> {
    let wanted = match stdio {
        ExecStdio::Terminal => super::NO_STREAMS,
        ExecStdio::Passed(streams) => streams,
    };
    let mut fds = fds.into_iter();
    let mut next = |passed: bool| match passed {
        true => {
            fds.next().ok_or_else(|| Failure::new(FailureKind::Invalid, "fewer descriptors than announced"))
        }
        false => null(),
    };
    Ok([next(wanted.stdin)?, next(wanted.stdout)?, next(wanted.stderr)?])
}
