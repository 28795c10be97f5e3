//! Health probes: one at a time, output captured, killed at their deadline. When to probe and what follows is
//! [`crate::health`]'s to decide.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use cata_runtime::{ExecPlan, ExecRequest, Handles};
use cata_sys::pidfd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, Signal, getsid, kill_process_group, pidfd_open};

use super::reactor::{Interest, Source};
use super::streams::{failed, nonblocking, null};
use super::{Driver, boot};
use crate::protocol::Failure;
use crate::stamp::Stamp;
use crate::state::{Pid, Rejected, What};
use crate::status::ProbeReport;

/// What is kept of a probe's output, as Docker does.
const KEPT_OUTPUT: usize = 4096;
/// How many probes are kept.
const KEPT_PROBES: usize = 5;

/// The probe that runs.
struct Probe {
    pid: Pid,
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: Stamp,
}

#[derive(Default)]
pub(super) struct Probes {
    running: Option<Probe>,
    /// Killed ones that are not reaped yet: their end is no news.
    killed: Vec<Pid>,
    log: VecDeque<ProbeReport>,
}

impl Probes {
    pub(super) fn log(&self) -> Vec<ProbeReport> {
        self.log.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.log.clear();
    }

    fn record(&mut self, report: ProbeReport) {
        if self.log.len() >= KEPT_PROBES {
            self.log.pop_front();
        }
        self.log.push_back(report);
    }
}

impl Driver {
    pub(super) fn start_probe(&mut self) {
        let start = Stamp::now();
        if let Err(failure) = self.try_probe(start) {
            let output = failure.message;
            self.probes.record(ProbeReport { start, end: Stamp::now(), exit_code: -1, output });
            self.queue.push_back(What::Probed(false));
        }
    }

    fn try_probe(&mut self, start: Stamp) -> Result<(), Failure> {
        let Some(health) = &self.health_plan else { return Err(Rejected::Stale.into()) };
        let launch = boot::read_plan(self.plan.as_fd())?;
        let health_argv = health.argv.clone();
        let request = ExecRequest { argv: health_argv.clone(), ..ExecRequest::default() };
        let plan = ExecPlan::new(&launch.plan, request);
        drop(launch);
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        nonblocking(&ours);
        let null = null()?;
        let spawned = if self.machine.is_some() {
            let request = ExecRequest { argv: health_argv, ..ExecRequest::default() };
            let copy = || {
                theirs
                    .try_clone()
                    .map_err(|e| Failure::new(crate::protocol::FailureKind::System, e.to_string()))
            };
            let stdio = [null, copy()?, copy()?];
            // Nobody hears its report: its output says the same.
            self.spawn_session(&request, &stdio, &["session", "probe"])?.0
        } else {
            let container = self.pidfd().ok_or(Rejected::NotRunning)?;
            let handles = Handles::new(null.as_fd(), theirs.as_fd(), theirs.as_fd());
            cata_runtime::exec(&plan, container, &self.cage.enter(handles))?
        };
        self.reactor.add(&ours, Source::Probe, Interest::Read).map_err(failed)?;
        self.probes.running = Some(Probe {
            pid: Pid(spawned.pid.as_raw_nonzero().get()),
            pidfd: spawned.pidfd,
            output: Some(ours),
            text: Vec::new(),
            start,
        });
        cata_sys::heap::trim();
        Ok(())
    }

    pub(super) fn read_probe(&mut self) {
        let Some(probe) = &mut self.probes.running else { return };
        let Some(output) = &probe.output else { return };
        let mut piece = [0_u8; 4096];
        // A few at a time: a probe that floods its output has no more than its turn.
        for _ in 0..4 {
            match rustix::io::read(output, &mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    let room = KEPT_OUTPUT.saturating_sub(probe.text.len());
                    probe.text.extend_from_slice(&piece[..length.min(room)]);
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => break,
            }
            if probe.text.len() >= KEPT_OUTPUT {
                return;
            }
        }
        self.reactor.remove(output.as_fd());
        probe.output = None;
    }

    /// A reaped process, if it was the probe's.
    pub(super) fn probe_ended(&mut self, pid: Pid, code: i32) -> bool {
        if let Some(at) = self.probes.killed.iter().position(|killed| *killed == pid) {
            self.probes.killed.swap_remove(at);
            return true;
        }
        if self.probes.running.as_ref().is_none_or(|probe| probe.pid != pid) {
            return false;
        }
        self.read_probe();
        if let Some(probe) = self.probes.running.take() {
            if let Some(output) = &probe.output {
                self.reactor.remove(output.as_fd());
            }
            let output = String::from_utf8_lossy(&probe.text).into_owned();
            self.probes.record(ProbeReport {
                start: probe.start,
                end: Stamp::now(),
                exit_code: code,
                output,
            });
            self.queue.push_back(What::Probed(code == 0));
        }
        true
    }

    /// Kills a probe that is not reaped yet, so that its number is its own, and all of its session: what a
    /// shell started for it does not outlive it.
    fn kill_session(&self, probe: &Probe) {
        // It may have ended by itself.
        let _ = pidfd::signal(probe.pidfd.as_fd(), 9);
        let Some(session) = rustix::process::Pid::from_raw(probe.pid.0) else { return };
        let _ = kill_process_group(session, Signal::KILL);
        // Other process groups of the session, as job control makes them.
        for pid in self.cage.processes() {
            let belongs = |pid| getsid(Some(pid)) == Ok(session);
            if let Some(pid) = rustix::process::Pid::from_raw(pid)
                && belongs(pid)
                && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
                // The number may have been another's before it was opened.
                && belongs(pid)
            {
                let _ = pidfd::signal(process.as_fd(), 9);
            }
        }
    }

    /// Kills the probe that runs; the machine has already counted it, or forgotten it.
    pub(super) fn kill_probe(&mut self) {
        self.read_probe();
        let Some(probe) = self.probes.running.take() else { return };
        if let Some(output) = &probe.output {
            self.reactor.remove(output.as_fd());
        }
        self.kill_session(&probe);
        self.probes.killed.push(probe.pid);
        if matches!(self.state.phase, crate::state::Phase::Running { .. }) {
            let limit = self.health_plan.as_ref().map(|plan| plan.timeout).unwrap_or_default();
            let written = String::from_utf8_lossy(&probe.text);
            let output = format!("Health check exceeded timeout ({limit:?}): {written}");
            self.probes.record(ProbeReport { start: probe.start, end: Stamp::now(), exit_code: -1, output });
        }
    }
}
