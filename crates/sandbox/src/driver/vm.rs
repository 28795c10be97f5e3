//! The second hull: what differs when the container's process lives in a virtual machine. The process that
//! this supervisor sees is `cata-vmm`, whose streams, signals and exit code stand for those of the process in
//! the guest; what cannot be said that way is said over a socket ([`cata_guest::report`]).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cata_guest::order::Order;
use cata_guest::protocol::Failed;
use cata_guest::report::{BootTimes, LONGEST, Report, Word};
use cata_runtime::companion::{Companion, companion};
use cata_runtime::plan::WindowSize;
use cata_runtime::{ExecRequest, Handles, Spawned};
use cata_sys::message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use super::notify::Awaited;
use super::reactor::{Interest, Source};
use super::streams::{Given, failed, nonblocking};
use super::{Driver, Process};
use crate::protocol::{Failure, FailureKind};
use crate::stamp::Stamp;
use crate::state::{Exit, Phase, Pid, Rejected, Stage, Then, Timer, What};

/// How long a machine may take to hold still; one that does not is frozen with everything that runs it.
const STILL: Duration = Duration::from_secs(5);

/// As for a process of the host's: a handler may be about to be installed.
const GRACE: Duration = Duration::from_secs(1);

/// How often another machine is made in place of one that ended before its guest said a word: software emulation on a
/// busy host now and then does not come up.
const AGAIN: u32 = 2;

/// What every machine of this container is made of.
#[derive(Default)]
pub(super) struct Links {
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) links: Option<serde_json::Value>,
    /// What the guest shall have, if less than it is booted with.
    pub(super) memory: Option<u64>,
}

/// A machine that boots or runs.
pub(super) struct Machine {
    socket: OwnedFd,
    program: PathBuf,
    /// Signals that the guest's kernel dropped.
    dropped: Vec<i32>,
    failed: Option<Failed>,
    ended: Option<Ended>,
    /// Bytes of its own memory.
    memory: u64,
    pub(super) boot: Option<BootTimes>,
    /// Until it runs.
    ends: Option<Ends>,
    /// It ended before its guest said a word.
    died: bool,
    /// Somebody wanted its end.
    unwanted: bool,
    /// How many there were before it.
    attempt: u32,
    /// It was asked to hold still, and does.
    paused: bool,
}

/// The container's ends of its streams, for another machine: what is attached to the others notices nothing.
struct Ends {
    given: Given,
    /// A terminal without a user would be at its end.
    _terminal: Option<OwnedFd>,
}

/// What it said of its end.
#[derive(Default)]
struct Ended {
    oom: bool,
    peak: Option<u64>,
    error: Option<String>,
}

impl Machine {
    pub(super) fn unwanted(&mut self) {
        self.unwanted = true;
    }

    pub(super) fn drops(&self, signal: i32) -> bool {
        self.dropped.contains(&signal)
    }
}

/// One look at a socket.
pub(super) enum Said {
    This(Report),
    Nothing,
    /// The other end has closed, or does not make sense.
    Closed,
}

pub(super) fn receive(socket: &OwnedFd) -> Said {
    match message::receive(socket.as_fd(), LONGEST, 0) {
        Ok(Some((bytes, _))) => serde_json::from_slice(&bytes).map_or(Said::Closed, Said::This),
        Err(Errno::AGAIN | Errno::INTR) => Said::Nothing,
        Ok(None) | Err(_) => Said::Closed,
    }
}

pub(super) fn failure(failed: Failed) -> Failure {
    let Failed { message, hint, exit_code } = failed;
    Failure { kind: FailureKind::Start, message, hint, exit_code }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    message::pair().map_err(failed)
}

fn send(socket: &OwnedFd, word: &Word, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(word).map_err(|e| Failure::new(FailureKind::System, e.to_string()))?;
    message::send(socket.as_fd(), &bytes, fds).map_err(failed)
}

/// Waits so long for something to be read; its end is nothing.
fn is_readable(socket: &OwnedFd, wait: Duration) -> bool {
    let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
    let mut watched = [PollFd::new(socket, PollFlags::IN)];
    let ready = poll(&mut watched, Some(&timeout)).is_ok_and(|count| count > 0);
    ready && !watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

impl Driver {
    /// Starts a machine; [`Driver::read_machine`] hears what comes of it.
    pub(super) fn boot_machine(
        &mut self,
        order: &Order,
        window: Option<WindowSize>,
        given: Given,
        attempt: u32,
    ) -> Result<(), Failure> {
        let (ours, theirs) = pair()?;
        let spawned = {
            let mut handles = Handles::new(given.stdin.as_fd(), given.stdout.as_fd(), given.stderr.as_fd());
            if let Some(network) = &self.network {
                handles = handles.network(network.as_fd());
            }
            let wanted = Companion {
                program: &order.program,
                arguments: &["machine"],
                descriptors: &[self.plan.as_fd(), theirs.as_fd()],
                terminal: self.terminal.then_some(window),
            };
            companion(&wanted, &self.cage.enter(handles))
        };
        let spawned = spawned.map_err(|error| {
            self.close_streams();
            let hint = Some("is cata-vmm installed beside cata?".to_owned());
            Failure { exit_code: 125, hint, ..Failure::from(error) }
        })?;
        self.process = Some(Process { pid: Pid(spawned.pid.as_raw_nonzero().get()), pidfd: spawned.pidfd });
        let links = self.links.links.clone();
        let fds: Vec<BorrowedFd<'_>> = self.links.descriptors.iter().map(|fd| fd.as_fd()).collect();
        send(&ours, &Word::Begin { links }, &fds)?;
        nonblocking(&ours);
        self.reactor.add(&ours, Source::Machine, Interest::Read).map_err(failed)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let user = spawned.terminal.as_ref().map(|master| ioctl_tiocgptpeer(master, flags));
        let user = user.transpose().map_err(failed)?;
        if let Some(terminal) = spawned.terminal {
            self.use_terminal(terminal);
        }
        if attempt == 0 || self.terminal {
            self.watch_output();
        }
        self.cage.started();
        self.machine = Some(Machine {
            socket: ours,
            program: order.program.clone(),
            dropped: Vec::new(),
            failed: None,
            ended: None,
            memory: order.memory,
            boot: None,
            ends: Some(Ends { given, _terminal: user }),
            died: false,
            unwanted: false,
            attempt,
            paused: false,
        });
        Ok(())
    }

    /// The machine says something.
    pub(super) fn read_machine(&mut self) {
        while let Some(machine) = &mut self.machine {
            let report = match receive(&machine.socket) {
                Said::This(report) => report,
                Said::Nothing => return,
                Said::Closed => {
                    // Its end is seen by its exit.
                    self.reactor.remove(machine.socket.as_fd());
                    return;
                }
            };
            match report {
                Report::Started { withheld, boot } => {
                    machine.boot = boot;
                    machine.ends = None;
                    self.guest_started(withheld);
                }
                Report::Failed(failed) => machine.failed = Some(failed),
                Report::Died(failed) => {
                    machine.died = true;
                    machine.failed = machine.failed.take().or(Some(failed));
                }
                Report::Fate { signal, dropped } => self.signal_fate(signal, dropped),
                Report::Paused => machine.paused = true,
                Report::Exiting => self.ending(),
                Report::Ended { oom, peak, error } => machine.ended = Some(Ended { oom, peak, error }),
            }
        }
    }

    fn guest_started(&mut self, withheld: Vec<String>) {
        let Some(process) = &self.process else { return };
        self.queue.push_back(What::Spawned(process.pid));
        self.status.withheld = self.cage.warnings();
        self.status.withheld.extend(withheld);
        if let Some(bytes) = self.links.memory {
            let _ = self.set_machine_memory(bytes);
        }
        self.probes.clear();
        self.status.started_at = Some(Stamp::now());
        self.status.finished_at = None;
    }

    /// As when a process of the host's has no handler: one second more, not the whole deadline.
    fn signal_fate(&mut self, signal: i32, dropped: bool) {
        let Some(machine) = &mut self.machine else { return };
        machine.dropped.retain(|known| *known != signal);
        if dropped {
            machine.dropped.push(signal);
        }
        if !matches!(self.state.phase, Phase::Stopping { stage: Stage::Asked, .. }) {
            return;
        }
        if !dropped {
            // The guest has sent it again itself.
            self.timers[Timer::Grace.index()] = None;
            return;
        }
        let at = self.now().after(GRACE);
        if self.timers[Timer::Stop.index()].is_none_or(|deadline| deadline > at) {
            self.arm(Timer::Grace, at);
        }
        for waiter in &mut self.waiters {
            if let Awaited::Stopped { ignored } = &mut waiter.awaited {
                *ignored = true;
            }
        }
    }

    fn boots(&self) -> bool {
        self.machine.is_some() && matches!(self.state.phase, Phase::Starting { .. })
    }

    /// A machine boots that nobody has seen run.
    pub(super) fn boots_first(&self) -> bool {
        self.boots() && matches!(self.state.phase, Phase::Starting { first: true, .. })
    }

    /// A signal that ends programs ends a machine that has none yet.
    pub(super) fn kills_boot(&self, signal: i32) -> bool {
        self.boots() && (matches!(signal, 2 | 9 | 15) || signal == self.state.rules.stop_signal)
    }

    /// A stop that came while the machine boots does not wait for it.
    pub(super) fn stop_booting(&mut self) {
        if self.boots()
            && matches!(self.state.phase, Phase::Starting { then: Then::Down, .. })
            && let Some(machine) = &mut self.machine
            && machine.failed.is_none()
        {
            let message = "the container was stopped while its virtual machine booted".to_owned();
            machine.failed = Some(Failed { message, hint: None, exit_code: 137 });
            self.kill_all();
        }
    }

    /// The process that stands for the machine has ended: its last words.
    pub(super) fn machine_ended(&mut self) -> Option<Machine> {
        self.read_machine();
        let machine = self.machine.take()?;
        self.reactor.remove(machine.socket.as_fd());
        Some(machine)
    }

    /// In place of a machine that ended before its guest said a word, another; the machine comes back where there is
    /// to be none.
    pub(super) fn boot_again(&mut self, mut machine: Machine, exit: &Exit) -> Option<Machine> {
        let starting = matches!(self.state.phase, Phase::Starting { then: Then::Policy, .. });
        let again = machine.died && !machine.unwanted && !exit.oom && machine.attempt < AGAIN;
        let Some(Ends { given, .. }) = machine.ends.take().filter(|_| starting && again) else {
            return Some(machine);
        };
        let why = machine.failed.as_ref().map(|failed| failed.message.as_str()).unwrap_or_default();
        self.complain(&format!("another machine is made in place of one that did not come up: {why}"));
        // What it had started goes with it.
        self.kill_all();
        if self.terminal {
            self.forget_terminal();
        }
        match self.boot_anew(given, machine.attempt + 1) {
            Ok(()) => None,
            Err(failure) => {
                let (message, hint, exit_code) = (failure.message, failure.hint, failure.exit_code);
                Some(Machine { failed: Some(Failed { message, hint, exit_code }), ..machine })
            }
        }
    }

    fn boot_anew(&mut self, given: Given, attempt: u32) -> Result<(), Failure> {
        let launch = super::boot::read_plan(self.plan.as_fd())?;
        let failed = |message| Failure::new(FailureKind::System, message);
        self.cage.renew(launch.plan.cgroup.as_ref()).map_err(failed)?;
        let order = launch.vm.as_ref().ok_or_else(|| failed("the plan has no machine".to_owned()))?;
        self.boot_machine(order, launch.plan.process.window, given, attempt)
    }

    /// What its end means.
    pub(super) fn end_of(&mut self, machine: Machine, exit: &Exit) -> What {
        if !matches!(self.state.phase, Phase::Starting { .. }) {
            let killed = exit.code == 137 && machine.ended.is_none() && machine.failed.is_none();
            let Ended { oom, peak, error } = machine.ended.unwrap_or_default();
            if !exit.oom {
                // The limit that was asked for is the machine's; around it is what running it takes.
                self.status.memory_limit = self.status.memory_limit.map(|_| machine.memory);
                self.status.memory_peak = peak;
            }
            let expected = matches!(self.state.phase, Phase::Stopping { stage: Stage::Killed, .. });
            let error = error.or_else(|| {
                (killed && !expected).then(|| "the virtual machine's process was killed".to_owned())
            });
            return What::ProcessExited(Exit { code: exit.code, oom: exit.oom || oom, error });
        }
        // What it had started goes with it.
        self.kill_all();
        self.close_streams();
        let failed = machine.failed.unwrap_or_else(|| Failed {
            message: match exit.oom {
                true => "the virtual machine was killed for want of memory while it booted".to_owned(),
                false => format!("the virtual machine's process ended with {} while it booted", exit.code),
            },
            hint: None,
            exit_code: 125,
        });
        let exit = Exit { code: failed.exit_code, oom: exit.oom, error: Some(failed.message.clone()) };
        self.failure = Some(failure(failed));
        What::SpawnFailed(exit)
    }

    /// How much memory the guest shall have; one that is started again is told once more.
    pub(super) fn set_machine_memory(&mut self, bytes: u64) -> Result<(), Failure> {
        let Some(machine) = &self.machine else { return Err(Rejected::NotRunning.into()) };
        send(&machine.socket, &Word::Memory { bytes }, &[])?;
        self.links.memory = Some(bytes);
        Ok(())
    }

    /// Has the machine hold still; false where there is none, or it does not answer.
    pub(super) fn pause_machine(&mut self) -> bool {
        let until = Instant::now() + STILL;
        let Some(machine) = &mut self.machine else { return false };
        machine.paused = false;
        let mut asked = send(&machine.socket, &Word::Pause, &[]).is_ok();
        while let Some(machine) = self.machine.as_ref().filter(|machine| asked && !machine.paused) {
            let left = until.saturating_duration_since(Instant::now());
            asked = is_readable(&machine.socket, left);
            self.read_machine();
        }
        self.machine.as_ref().is_some_and(|machine| machine.paused)
    }

    /// Lets it go on; one that is not held does not mind.
    pub(super) fn resume_machine(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.paused = false;
            // One that has gone is heard of by its end.
            let _ = send(&machine.socket, &Word::Resume, &[]);
        }
    }

    /// A stream to the guest.
    pub(super) fn connect_to_guest(&mut self) -> Result<OwnedFd, Failure> {
        let Some(machine) = &self.machine else {
            return Err(Failure::new(FailureKind::Invalid, "the container has no virtual machine"));
        };
        match self.state.phase {
            Phase::Running { .. } | Phase::Stopping { .. } => {}
            Phase::Paused { .. } => return Err(Rejected::Paused.into()),
            _ => return Err(Rejected::NotRunning.into()),
        }
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        send(&machine.socket, &Word::Client, &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// A process of the host's that stands for one more in the guest, and the socket it reports to. With
    /// `probe` among its arguments nobody listens to that: it says what it has to say with its output.
    pub(super) fn spawn_session(
        &mut self,
        request: &ExecRequest,
        stdio: &[OwnedFd; 3],
        arguments: &[&str],
    ) -> Result<(Spawned, OwnedFd), Failure> {
        let guest = self.connect_to_guest()?;
        let program = self.machine.as_ref().map(|machine| machine.program.clone()).unwrap_or_default();
        let (ours, theirs) = pair()?;
        let text =
            serde_json::to_vec(request).map_err(|e| Failure::new(FailureKind::Invalid, e.to_string()))?;
        message::send(ours.as_fd(), &text, &[]).map_err(failed)?;
        let handles = Handles::new(stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd());
        let wanted = Companion {
            program: &program,
            arguments,
            descriptors: &[self.plan.as_fd(), theirs.as_fd(), guest.as_fd()],
            terminal: request.terminal.then_some(request.window),
        };
        let spawned = companion(&wanted, &self.cage.enter(handles))?;
        Ok((spawned, ours))
    }
}
