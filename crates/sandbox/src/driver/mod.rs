//! The supervisor itself: one loop over one epoll instance, which performs what [`crate::step`] decides and
//! turns what happens into events. Nothing in it waits for anything but that loop, and the loop always has a
//! deadline when the container's life has one.

mod boot;
mod cage;
mod company;
mod connection;
mod exec;
mod finish;
mod notify;
mod probe;
mod reactor;
mod report;
mod request;
mod rest;
mod streams;
mod tell;
mod vm;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use cata_runtime::{Handles, Manner};
use cata_sys::{heap, pidfd, signalfd::SignalFd};
use rustix::process::{WaitOptions, wait};

use crate::journal::Story;
use crate::launch::{HealthPlan, Launch, StdinPlan};
use crate::log::Writer;
use crate::moment::Moment;
use crate::protocol::{Failure, Streams};
use crate::service::{Make, Service};
use crate::stamp::Stamp;
use crate::state::{Action, Event, Exit, Phase, Pid, Rejected, State, Timer, What};
use crate::status::Status;
use crate::step::step;
use cage::Cage;
use company::Company;
use connection::Connections;
use exec::Sessions;
use notify::Waiter;
use probe::Probes;
use reactor::{Reactor, Source};
use streams::Output;

pub use boot::BootError;

/// How many processes are reaped before descriptors are looked at again.
const REAP_AT_ONCE: u32 = 1000;

/// The container's process.
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Everything a supervisor holds.
struct Driver {
    reactor: Reactor,
    state: State,
    timers: [Option<Moment>; Timer::ALL.len()],
    queue: VecDeque<What>,
    leaving: bool,

    /// The sealed plan, read again at each restart and exec instead of being held in memory.
    plan: OwnedFd,
    launch: Option<Box<Launch>>,
    terminal: bool,
    stdin_plan: StdinPlan,
    auto_remove: bool,
    /// Killed when the engine's own connection closes.
    leashed: bool,
    health_plan: Option<HealthPlan>,

    dir: OwnedFd,
    lock: Option<File>,
    signals: SignalFd,
    listener: Option<OwnedFd>,
    connections: Connections,
    waiters: Vec<Waiter>,

    network: Option<OwnedFd>,
    /// The user namespace that it belongs to, if not the host's.
    users: Option<OwnedFd>,
    machine: Option<vm::Machine>,
    links: vm::Links,
    held: Vec<OwnedFd>,
    make_service: Make,
    service: Option<Box<dyn Service>>,

    process: Option<Process>,
    output: Output,
    log: Option<Writer>,
    cage: Cage,
    sessions: Sessions,
    probes: Probes,

    status: Status,
    failure: Option<Failure>,
    network_undo: Vec<crate::launch::Undo>,
    undo: Vec<crate::launch::Undo>,
    /// Told of its networks when it has ended, in front of the story's endings.
    network_endings: Vec<crate::journal::Entry>,
    story: Option<Story>,
    files: boot::Files,
}

/// Runs a supervisor to its end. `plan` and `socket` are what [`crate::launch()`] handed over.
///
/// # Errors
/// [`BootError`]; it has been told to the engine, and nothing is left behind.
pub fn run(plan: OwnedFd, socket: OwnedFd, make_service: Make) -> Result<(), BootError> {
    let mut driver = boot::boot(plan, socket, make_service)?;
    driver.arm(Timer::Launch, driver.now().after(boot::LAUNCH_PATIENCE));
    while !driver.leaving {
        driver.turn();
    }
    Ok(())
}

impl Driver {
    fn now(&self) -> Moment {
        reactor::now()
    }

    fn arm(&mut self, timer: Timer, at: Moment) {
        self.timers[timer.index()] = Some(at);
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        let now = self.now();
        let timer = self.timers.iter().flatten().min().map(|at| at.since(now));
        let service = self.service.as_ref().and_then(|service| service.wait());
        let wait: Option<Duration> = [timer, service].into_iter().flatten().min();
        for source in self.reactor.wait(wait) {
            self.ready(source);
        }
        if let Some(service) = &mut self.service
            && service.wait().is_some_and(|wait| wait.is_zero())
        {
            service.ready();
        }
        self.expire();
        self.settle();
    }

    fn ready(&mut self, source: Source) {
        match source {
            Source::Signal => self.signal(),
            Source::Listener => self.accept(),
            Source::Connection(id) => self.serve(id),
            Source::Output(stream) => self.read_output(stream),
            Source::Tap(id) => self.flush_tap(id),
            Source::Probe => self.read_probe(),
            Source::Session(id) => self.discard_session_output(id),
            Source::Report(id) => self.read_session_report(id),
            Source::Machine => self.read_machine(),
            Source::Service => {
                if let Some(service) = &mut self.service {
                    service.ready();
                }
            }
        }
    }

    fn expire(&mut self) {
        let now = self.now();
        for timer in Timer::ALL {
            if self.timers[timer.index()].is_some_and(|at| at <= now) {
                self.timers[timer.index()] = None;
                let what = match timer {
                    Timer::Grace => What::GraceOver { ignored: self.ignores(self.state.rules.stop_signal) },
                    timer => What::Timer(timer),
                };
                self.queue.push_back(what);
            }
        }
    }

    /// Feeds what actions have caused; news that came too late are dropped here.
    fn settle(&mut self) {
        while let Some(what) = self.queue.pop_front() {
            let _ = self.feed(what);
        }
    }

    /// One event into the machine, and its actions out.
    fn feed(&mut self, what: What) -> Result<(), Rejected> {
        let event = Event { at: self.now(), what };
        let (next, actions) = step(self.state.clone(), event.clone())?;
        // Before anybody hears of it otherwise.
        self.tell_step(&event.what, &next, &actions);
        self.state = next;
        for action in &actions {
            self.perform(action);
        }
        self.stop_booting();
        Ok(())
    }

    fn perform(&mut self, action: &Action) {
        match *action {
            Action::Spawn => self.spawn(),
            Action::Signal(signal) => {
                if let Some(process) = &self.process
                    && let Err(error) = pidfd::signal(process.pidfd.as_fd(), signal)
                {
                    self.failure =
                        Some(Failure::new(crate::protocol::FailureKind::Invalid, error.to_string()));
                }
            }
            Action::KillAll => self.kill_all(),
            Action::Freeze => {
                if !self.pause_machine()
                    && let Err(message) = self.cage.freeze()
                {
                    self.failure = Some(Failure::new(crate::protocol::FailureKind::System, message));
                }
            }
            Action::Thaw => {
                if let Err(message) = self.cage.thaw() {
                    self.failure = Some(Failure::new(crate::protocol::FailureKind::System, message));
                }
                self.resume_machine();
            }
            Action::Drain => self.drain(),
            Action::CloseStreams => self.close_streams(),
            Action::Arm(timer, at) => self.arm(timer, at),
            Action::Disarm(timer) => self.timers[timer.index()] = None,
            Action::Probe => self.start_probe(),
            Action::KillProbe => self.kill_probe(),
            Action::Persist => self.persist(),
            Action::Notify(milestone) => self.notify(milestone),
            Action::Undo => self.undo(),
            Action::Leave => self.leave(),
        }
    }

    fn signal(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal == rustix::process::Signal::CHILD.as_raw() {
                self.reap();
            } else {
                // The host goes down, or somebody wants this supervisor to end: so does its container.
                self.queue.push_back(What::Shutdown);
                if matches!(self.state.phase, Phase::Created) {
                    self.queue.push_back(What::EngineGone);
                }
            }
        }
    }

    fn reap(&mut self) {
        for _ in 0..REAP_AT_ONCE {
            let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) else { return };
            let code = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                .unwrap_or(255);
            let pid = Pid(pid.as_raw_nonzero().get());
            if self.process.as_ref().is_some_and(|process| process.pid == pid) {
                self.ended(code);
            } else if !self.probe_ended(pid, code) {
                // Neither: a stray of a shared pid namespace, which nobody else would reap.
                self.session_ended(pid, code);
            }
        }
    }

    /// The container's first process is gone.
    fn ended(&mut self, code: i32) {
        let machine = self.machine_ended();
        self.process = None;
        self.status.finished_at = Some(Stamp::now());
        self.status.memory_peak = self.cage.memory_peak();
        self.status.memory_limit = self.cage.memory_limit();
        let exit = Exit { code, oom: self.cage.oom_killed(), error: None };
        let what = match machine {
            None => What::ProcessExited(exit),
            Some(machine) => match self.boot_again(machine, &exit) {
                None => return heap::trim(),
                Some(machine) => self.end_of(machine, &exit),
            },
        };
        self.queue.push_back(what);
    }

    fn kill_all(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.unwanted();
        }
        if let Some(process) = &self.process {
            // Without a cgroup, and in case its kill is refused: the first process takes its pid namespace
            // with it.
            let _ = pidfd::signal(process.pidfd.as_fd(), 9);
        }
        if let Err(message) = self.cage.kill() {
            self.complain(&message);
        }
        if self.cage.is_open() && self.machine.is_none() {
            rest::kill();
        }
    }

    fn spawn(&mut self) {
        let what = match self.try_spawn() {
            Ok(Some(pid)) => What::Spawned(pid),
            // It boots; what comes of it is told later.
            Ok(None) => return heap::trim(),
            Err(failure) => {
                let error = Some(failure.message.clone());
                let code = failure.exit_code;
                self.failure = Some(failure);
                What::SpawnFailed(Exit { code, oom: false, error })
            }
        };
        heap::trim();
        self.queue.push_back(what);
    }

    /// `None`: a virtual machine boots.
    fn try_spawn(&mut self) -> Result<Option<Pid>, Failure> {
        let launch = match self.launch.take() {
            Some(launch) => launch,
            None => {
                let launch = boot::read_plan(self.plan.as_fd())?;
                let failed = |message| Failure::new(crate::protocol::FailureKind::System, message);
                self.cage.renew(launch.plan.cgroup.as_ref()).map_err(failed)?;
                launch
            }
        };
        let given = self.open_streams()?;
        if let Some(order) = &launch.vm {
            return self.boot_machine(order, launch.plan.process.window, given, 0).map(|()| None);
        }
        let spawned = {
            let mut handles = Handles::new(given.stdin.as_fd(), given.stdout.as_fd(), given.stderr.as_fd());
            if let Some(network) = &self.network {
                handles = handles.network(network.as_fd());
            }
            if let Some(users) = &self.users {
                handles = handles.user(users.as_fd());
            }
            let handles = self.cage.enter(handles);
            let mut company = Company { launch: &launch };
            cata_runtime::spawn_with(&launch.plan, &handles, Manner::default(), &mut company)
        };
        drop(given);
        let spawned = spawned.map_err(|error| {
            self.close_streams();
            Failure::from(error)
        })?;
        if let Some(terminal) = spawned.terminal {
            self.use_terminal(terminal);
        }
        self.watch_output();
        let pid = Pid(spawned.pid.as_raw_nonzero().get());
        self.process = Some(Process { pid, pidfd: spawned.pidfd });
        self.cage.started();
        self.status.withheld = self.cage.warnings();
        self.status.withheld.extend(spawned.withheld);
        self.probes.clear();
        self.status.started_at = Some(Stamp::now());
        self.status.finished_at = None;
        Ok(Some(pid))
    }

    /// Whether the kernel would drop this signal: the process is pid 1 of a pid namespace of its own, and
    /// neither catches it nor holds it back (as users of `sigwait` and `signalfd` do).
    fn ignores(&self, signal: i32) -> bool {
        let Some(process) = &self.process else { return false };
        if let Some(machine) = &self.machine {
            return machine.drops(signal);
        }
        cata_runtime::signal::is_dropped(process.pid.0, signal)
    }

    fn complain(&self, message: &str) {
        self.files.complain(message);
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.pidfd.as_fd())
    }
}

/// No streams.
const NO_STREAMS: Streams = Streams { stdin: false, stdout: false, stderr: false };
