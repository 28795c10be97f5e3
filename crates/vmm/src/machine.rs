//! A machine: made of its description, started once, and from then on threads with a handle to them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::Killable;

use crate::boot;
use crate::bus::Bus;
use crate::config::MachineConfig;
use crate::ending::Ending;
use crate::error::{End, MachineError};
use crate::jail::{Filters, Thread};
use crate::kvm::prefault::prefault;
use crate::kvm::{fd, signal, vm::Vm};
use crate::layout;
use crate::memory::Ram;
use crate::vcpu::{Gate, Vcpu};
use crate::virtio::balloon::{self, Balloon};
use crate::virtio::block::Block;
use crate::virtio::console::{Console, LastWords};
use crate::virtio::device::{ConfigSpace, Device, Interrupt};
use crate::virtio::fs::Fs;
use crate::virtio::mmio::{NOTIFY, Transport};
use crate::virtio::net::Net;
use crate::virtio::rng::Rng;
use crate::virtio::vsock::Vsock;
use crate::virtio::worker::{Command, Handle, Worker};

/// Threads need little: no recursion, no large buffers.
const STACK: usize = 128 << 10;

/// A machine that is ready to start.
pub struct Machine {
    vm: Vm,
    ram: Arc<Ram>,
    vcpus: Vec<Vcpu>,
    workers: Vec<(String, Worker)>,
    gate: Arc<Gate>,
    ending: Ending,
    balloon: Option<(ConfigSpace, Interrupt)>,
}

/// A machine that runs. Dropping it leaves it running until the process ends; [`Running::stop`] stops it.
pub struct Running {
    vcpus: Vec<(JoinHandle<()>, Arc<AtomicU64>)>,
    workers: Vec<(JoinHandle<()>, Handle)>,
    gate: Arc<Gate>,
    ending: Ending,
    balloon: Option<(ConfigSpace, Interrupt)>,
    ram: Arc<Ram>,
    /// KVM's side lives as long as this.
    _vm: Vm,
}

/// What can be known of a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How often processors came out of the guest to this process.
    pub exits: u64,
    /// Bytes of the host's memory that the guest holds.
    pub resident_bytes: u64,
}

/// Devices on their way into a machine.
struct Builder {
    vm: Vm,
    ram: Arc<Ram>,
    ending: Ending,
    transports: Vec<Transport>,
    workers: Vec<(String, Worker)>,
    /// Interrupt lines by number; devices beyond nineteen share them.
    lines: Vec<(u32, Arc<EventFd>)>,
}

impl Builder {
    /// Gives a device its registers, kicks and interrupt line, and a place in the worker.
    fn add(&mut self, device: Box<dyn Device>, worker: usize) -> Result<Interrupt, MachineError> {
        let slot = self.transports.len();
        let address = layout::device_address(slot);
        let interrupt = Interrupt::new(self.line(layout::device_line(slot))?);
        let mut kicks = Vec::new();
        for queue in 0..device.queues().len() {
            let kick = eventfd()?;
            self.vm.kick(&kick, address + NOTIFY, queue as u32)?;
            kicks.push(kick);
        }
        let (_, worker) = &mut self.workers[worker];
        let handle = worker.handle();
        let transport =
            |place| Transport::new(device.as_ref(), interrupt.clone(), self.ram.clone(), handle, place);
        self.transports.push(transport(worker.next_place()));
        worker.add(device, kicks.into(), interrupt.clone());
        Ok(interrupt)
    }

    fn line(&mut self, number: u32) -> Result<Arc<EventFd>, MachineError> {
        if let Some((_, line)) = self.lines.iter().find(|(known, _)| *known == number) {
            return Ok(line.clone());
        }
        let line = Arc::new(eventfd()?);
        self.vm.interrupt(&line, number)?;
        self.lines.push((number, line.clone()));
        Ok(line)
    }

    /// A worker more; the first one is everybody's.
    fn worker(&mut self, name: String) -> Result<usize, MachineError> {
        self.workers.push((name, Worker::new(self.ram.clone()).map_err(MachineError::Thread)?));
        Ok(self.workers.len() - 1)
    }
}

fn eventfd() -> Result<EventFd, MachineError> {
    EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(MachineError::device("machine", "make an eventfd"))
}

impl Machine {
    /// Makes a machine: memory filled, devices in place, processors ready. `kvm` is an open `/dev/kvm`.
    pub fn new(config: MachineConfig, kvm: OwnedFd) -> Result<Machine, MachineError> {
        config.validate()?;
        let bytes = config.memory_bytes;
        let ram = Arc::new(Ram::new(bytes).map_err(|source| MachineError::Memory { bytes, source })?);
        let vm = Vm::new(kvm, ram.clone(), config.vcpus)?;
        let boot::Start { entry, image } = boot::load(&ram, &config)?;
        if matches!(entry, boot::Entry::Linux64(_)) {
            boot::cpu::write_tables(&ram);
        }
        let ending = Ending::new().map_err(MachineError::device("machine", "make an eventfd"))?;
        let words = LastWords::default();
        let count = config.vcpus;
        let builder = Builder {
            vm,
            ram: ram.clone(),
            ending: ending.clone(),
            transports: Vec::new(),
            workers: Vec::new(),
            lines: Vec::new(),
        };
        let (builder, serial, balloon) = devices(builder, config, &words)?;
        let Builder { vm, workers, transports, .. } = builder;
        let bus = Arc::new(Bus::new(transports, serial));
        let gate = Arc::<Gate>::default();
        let mut vcpus = Vec::new();
        for index in 0..count {
            let fd = vm.vcpu(index)?;
            boot::cpu::set_up(&fd, vm.cpuid(), vm.deadline_timer(), (index, count), entry)?;
            if index == 0 {
                prefault(&fd, image);
            }
            vcpus.push(Vcpu {
                fd,
                bus: bus.clone(),
                gate: gate.clone(),
                ending: ending.clone(),
                words: words.clone(),
                exits: Arc::default(),
            });
        }
        Ok(Machine { vm, ram, vcpus, workers, gate, ending, balloon })
    }

    /// Starts the machine's threads, each confined by its filter where there are filters; the guest runs when
    /// this returns. The filter of the calling thread is the caller's business.
    pub fn start(self, filters: Option<&Filters>) -> Result<Running, MachineError> {
        signal::block().map_err(MachineError::Thread)?;
        let mut workers = Vec::new();
        for (name, worker) in self.workers {
            let handle = worker.handle();
            let (filters, ending) = (filters.cloned(), self.ending.clone());
            let thread = spawn(name, move || {
                if confined(filters, Thread::Devices, &ending) {
                    worker.run();
                }
            })?;
            workers.push((thread, handle));
        }
        let mut vcpus = Vec::new();
        for (index, vcpu) in self.vcpus.into_iter().enumerate() {
            let exits = vcpu.exits.clone();
            let (filters, ending) = (filters.cloned(), self.ending.clone());
            let thread = spawn(format!("vcpu{index}"), move || {
                if confined(filters, Thread::Vcpu, &ending) {
                    vcpu.run();
                }
            })?;
            vcpus.push((thread, exits));
        }
        let Machine { vm, ram, gate, ending, balloon, .. } =
            Machine { vcpus: Vec::new(), workers: Vec::new(), ..self };
        Ok(Running { vcpus, workers, gate, ending, balloon, ram, _vm: vm })
    }
}

/// Confines this thread; one that cannot be confined does not run.
fn confined(filters: Option<Filters>, thread: Thread, ending: &Ending) -> bool {
    let Some(Err(error)) = filters.map(|filters| filters.confine(thread)) else { return true };
    ending.set(End::Kvm(error.to_string()));
    false
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, MachineError> {
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(body).map_err(MachineError::Thread)
}

/// The serial port's sink and interrupt line; the balloon's configuration and interrupt.
type Extras = (Builder, Option<(OwnedFd, EventFd)>, Option<(ConfigSpace, Interrupt)>);

/// All devices of the description. Those that never wait for a disk share one worker.
fn devices(mut to: Builder, config: MachineConfig, words: &LastWords) -> Result<Extras, MachineError> {
    let shared = to.worker("devices".into())?;
    if config.console.is_some() || config.channel.is_some() {
        let console = Console::new(config.console, config.channel, words.clone());
        to.add(
            Box::new(console.map_err(MachineError::device("console", "use the channel's socket"))?),
            shared,
        )?;
    }
    if config.rng {
        to.add(Box::new(Rng), shared)?;
    }
    let mut balloon = None;
    if config.balloon {
        let device = Balloon::new();
        let space = device.config();
        balloon = Some((space, to.add(Box::new(device), shared)?));
    }
    for fs in config.fs {
        let device = Fs::new(&fs.tag, fs.socket, to.ending.clone());
        to.add(Box::new(device.map_err(MachineError::device("fs", "talk to the file server"))?), shared)?;
    }
    for (index, block) in config.block.into_iter().enumerate() {
        let worker = to.worker(format!("disk{index}"))?;
        let device = Block::new(block.file, block.read_only, block.serial);
        to.add(Box::new(device.map_err(MachineError::device("block", "use the file as a disk"))?), worker)?;
    }
    for net in config.net {
        let device = Net::new(net.tap, net.mac, net.mtu);
        to.add(Box::new(device.map_err(MachineError::device("net", "use the tap"))?), shared)?;
    }
    if let Some(vsock) = config.vsock {
        let device = Vsock::new(vsock.cid, vsock.listener);
        to.add(Box::new(device.map_err(MachineError::device("vsock", "use the local socket"))?), shared)?;
    }
    let mut serial = None;
    if let Some(sink) = config.serial {
        let line = eventfd()?;
        to.vm.interrupt(&line, layout::SERIAL_LINE)?;
        serial = Some((sink, line));
    }
    Ok((to, serial, balloon))
}

impl Running {
    /// Readable once the machine has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        fd::borrow(self.ending.signal())
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.ending.get()
    }

    fn call_out(&self) {
        for (thread, _) in &self.vcpus {
            // A thread that has ended needs no signal.
            let _ = thread.kill(signal::number());
        }
    }

    /// Holds processors and devices where they are. Returns when nothing moves any more.
    pub fn pause(&self) {
        self.gate.close();
        self.call_out();
        self.gate.wait_for(self.vcpus.len());
        for (_, worker) in &self.workers {
            worker.ask(Command::Pause);
        }
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        for (_, worker) in &self.workers {
            worker.send(Command::Resume);
        }
        self.gate.open();
    }

    /// Asks the guest to give up so many bytes of its memory, or to take them back. False without a balloon.
    pub fn set_balloon(&self, bytes: u64) -> bool {
        let Some((config, interrupt)) = &self.balloon else { return false };
        balloon::ask(config, bytes);
        interrupt.config();
        true
    }

    /// How large the balloon shall be, and is.
    pub fn balloon(&self) -> Option<(u64, u64)> {
        self.balloon.as_ref().map(|(config, _)| balloon::sizes(config))
    }

    /// What can be known now.
    pub fn facts(&self) -> io::Result<Facts> {
        let exits = self.vcpus.iter().map(|(_, exits)| exits.load(Ordering::Relaxed)).sum();
        Ok(Facts { exits, resident_bytes: self.ram.resident()? })
    }

    /// Ends all threads and says how the machine ended.
    pub fn stop(self) -> End {
        self.ending.set(End::Stopped);
        self.gate.stop();
        self.call_out();
        for (thread, _) in self.vcpus {
            let _ = thread.join();
        }
        for (_, worker) in &self.workers {
            worker.send(Command::Stop);
        }
        for (thread, _) in self.workers {
            let _ = thread.join();
        }
        self.ending.get().unwrap_or(End::Stopped)
    }
}
