//! One processor: a thread that is in the guest nearly all the time, and what it does when it comes out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::{Bus, Wish};
use crate::ending::Ending;
use crate::error::End;
use crate::kvm::signal;
use crate::virtio::console::LastWords;

/// Whether processors may run. One for all of a machine.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    stopped: bool,
    waiting: usize,
    gone: usize,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while paused; false when it is time to end.
    fn pass(&self) -> bool {
        let mut state = self.state();
        state.waiting += 1;
        self.change.notify_all();
        while state.paused && !state.stopped {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        !state.stopped
    }

    fn leave(&self) {
        self.state().gone += 1;
        self.change.notify_all();
    }

    /// From now on nobody passes; the caller then takes processors out of their guests.
    pub(crate) fn close(&self) {
        self.state().paused = true;
    }

    /// Waits until all of `count` processors stand before the closed gate, or have ended.
    pub(crate) fn wait_for(&self, count: usize) {
        let mut state = self.state();
        while state.waiting + state.gone < count {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn open(&self) {
        self.state().paused = false;
        self.change.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.change.notify_all();
    }
}

/// A processor, before its thread runs and in it.
pub(crate) struct Vcpu {
    pub(crate) fd: VcpuFd,
    pub(crate) bus: Arc<Bus>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ending: Ending,
    pub(crate) words: LastWords,
    /// How often it came out to this process.
    pub(crate) exits: Arc<AtomicU64>,
}

impl Vcpu {
    /// Runs until the machine ends or is stopped.
    pub(crate) fn run(mut self) {
        if let Err(error) = signal::let_through(&self.fd) {
            self.ending.set(End::Kvm(format!("a processor cannot be interrupted: {error}")));
        }
        while self.gate.pass() {
            match self.until_called() {
                Ok(()) => {
                    signal::clear();
                    // A paused guest's clock is told, so that its watchdogs do not bark.
                    let _ = self.fd.kvmclock_ctrl();
                }
                Err(end) => {
                    self.ending.set(end);
                    break;
                }
            }
        }
        self.gate.leave();
    }

    /// In the guest until a signal calls the processor out, or the machine ends.
    fn until_called(&mut self) -> Result<(), End> {
        loop {
            let exit = match self.fd.run() {
                Ok(exit) => exit,
                Err(error) if error.errno() == libc::EINTR => return Ok(()),
                Err(error) if error.errno() == libc::EAGAIN => continue,
                Err(error) => return Err(End::Kvm(format!("a processor does not run: {error}"))),
            };
            self.exits.fetch_add(1, Ordering::Relaxed);
            match exit {
                VcpuExit::MmioRead(address, data) => self.bus.read(address, data),
                VcpuExit::MmioWrite(address, data) => self.bus.write(address, data),
                VcpuExit::IoIn(port, data) => self.bus.port_in(port, data),
                VcpuExit::IoOut(port, data) => match self.bus.port_out(port, data) {
                    Wish::Nothing => {}
                    Wish::PowerOff => return Err(End::PowerOff),
                    Wish::Reset => return Err(self.or_panic(End::Reset)),
                },
                VcpuExit::Shutdown => return Err(self.or_panic(End::TripleFault)),
                VcpuExit::SystemEvent(..) => return Err(self.or_panic(End::Reset)),
                VcpuExit::FailEntry(reason, _) => {
                    return Err(End::Kvm(format!("a processor was refused entry: {reason:#x}")));
                }
                VcpuExit::InternalError => {
                    return Err(End::Kvm("an instruction could not be emulated".into()));
                }
                VcpuExit::Intr => return Ok(()),
                other => return Err(End::Kvm(format!("a processor came out unexpectedly: {other:?}"))),
            }
        }
    }

    fn or_panic(&self, end: End) -> End {
        self.words.get().map_or(end, End::Panic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_gate_holds_until_opened_and_a_stop_ends_the_wait() {
        let gate = Arc::new(Gate::default());
        assert!(gate.pass());
        gate.close();
        let there = gate.clone();
        let thread = std::thread::spawn(move || (there.pass(), there.pass()));
        gate.wait_for(1);
        gate.open();
        // The second pass may already be through; stopping it either way must end the thread.
        gate.stop();
        let (_, second) = thread.join().unwrap();
        assert!(!second || !gate.pass());
    }
}
