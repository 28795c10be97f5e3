//! The thread that devices live in: one epoll set, one device at a time, no locks on the way of data.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{Active, Device, Interrupt, Poll, Source};
use super::ring::Ring;
use crate::kvm::fd::borrow;
use crate::memory::Ram;

/// What is asked of a worker.
pub(crate) enum Command {
    /// A driver is ready to work with its device.
    Activate {
        /// Which device.
        slot: u16,
        /// Its queues.
        rings: Vec<Ring>,
        /// What the driver agreed to.
        features: u64,
    },
    /// A driver let go. Answered once the device touches its queues no more.
    Reset(u16, Sender<()>),
    /// Nothing moves until [`Command::Resume`]. Answered once that is so.
    Pause(Sender<()>),
    /// Go on.
    Resume,
    /// End the thread.
    Stop,
}

/// The way to a worker.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Handle {
    /// A worker that has ended gets nothing any more, and nobody waits for it.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    /// Sends what is answered, and waits for the answer or the worker's end.
    pub(crate) fn ask(&self, command: impl FnOnce(Sender<()>) -> Command) {
        let (done, answer) = channel();
        self.send(command(done));
        let _ = answer.recv();
    }
}

/// One device and what it has while active.
struct Place {
    device: Box<dyn Device>,
    kicks: Arc<[EventFd]>,
    interrupt: Interrupt,
    active: Option<Active>,
}

/// A worker that has not begun yet, or its own thread's state.
pub(crate) struct Worker {
    epoll: Arc<OwnedFd>,
    wake: Arc<EventFd>,
    handle: Handle,
    commands: Receiver<Command>,
    places: Vec<Place>,
    ram: Arc<Ram>,
}

const WAKE: u64 = u64::MAX;

impl Worker {
    pub(crate) fn new(ram: Arc<Ram>) -> io::Result<Worker> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        epoll::add(&epoll, borrow(&wake), epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let (sender, commands) = channel();
        let handle = Handle { commands: sender, wake: wake.clone() };
        Ok(Worker { epoll, wake, handle, commands, places: Vec::new(), ram })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What commands will name the next device by.
    pub(crate) fn next_place(&self) -> u16 {
        self.places.len() as u16
    }

    /// Takes a device in.
    pub(crate) fn add(&mut self, device: Box<dyn Device>, kicks: Arc<[EventFd]>, interrupt: Interrupt) {
        self.places.push(Place { device, kicks, interrupt, active: None });
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(32);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in events.drain(..) {
                if event.data.u64() == WAKE {
                    let _ = self.wake.read();
                    while let Ok(command) = self.commands.try_recv() {
                        if !self.obey(command) {
                            return;
                        }
                    }
                } else if let Some((slot, source)) = Poll::decode(event.data.u64()) {
                    self.dispatch(slot, source, event.flags);
                }
            }
        }
    }

    fn dispatch(&mut self, slot: u16, source: Source, flags: epoll::EventFlags) {
        // An event may be left over from before a reset.
        let Some(place) = self.places.get_mut(usize::from(slot)) else { return };
        let Some(active) = &mut place.active else { return };
        match source {
            Source::Kick(queue) => place.device.kicked(active, usize::from(queue)),
            Source::Device(event) => place.device.ready(active, event, flags),
        }
    }

    /// False when the thread shall end.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Activate { slot, rings, features } => self.activate(slot, rings, features),
            Command::Reset(slot, done) => {
                self.reset(slot);
                let _ = done.send(());
            }
            Command::Pause(done) => {
                let _ = done.send(());
                loop {
                    match self.commands.recv() {
                        Ok(Command::Resume) => return true,
                        // Paused is paused, however often it is asked for.
                        Ok(Command::Pause(done)) => {
                            let _ = done.send(());
                        }
                        Ok(Command::Stop) | Err(_) => return false,
                        Ok(other) => {
                            self.obey(other);
                        }
                    }
                }
            }
            Command::Resume => {}
            Command::Stop => return false,
        }
        true
    }

    fn activate(&mut self, slot: u16, rings: Vec<Ring>, features: u64) {
        let Some(place) = self.places.get_mut(usize::from(slot)) else { return };
        let poll = Poll::new(self.epoll.clone(), slot);
        let mut active = Active {
            ram: self.ram.clone(),
            rings,
            kicks: place.kicks.clone(),
            interrupt: place.interrupt.clone(),
            features,
            poll,
        };
        if place.device.activate(&mut active).is_err() {
            return;
        }
        if !place.device.served_elsewhere() {
            for (queue, kick) in place.kicks.iter().enumerate() {
                // Edge-triggered: each kick is one event, and the eventfd need not be read.
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                let _ = active.poll.add(borrow(kick), Source::Kick(queue as u16), flags);
            }
        }
        place.active = Some(active);
        // What was put into the queues before is served at once.
        for queue in 0..place.kicks.len() {
            self.dispatch(slot, Source::Kick(queue as u16), epoll::EventFlags::IN);
        }
    }

    fn reset(&mut self, slot: u16) {
        let Some(place) = self.places.get_mut(usize::from(slot)) else { return };
        if let Some(mut active) = place.active.take() {
            place.kicks.iter().for_each(|kick| active.poll.remove(borrow(kick)));
            place.device.reset(&mut active);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::virtio::driver::MEMORY;

    #[test]
    fn worker_paused_twice_goes_on_after_one_resume_and_still_stops() {
        let worker = Worker::new(Arc::new(Ram::new(MEMORY).unwrap())).unwrap();
        let handle = worker.handle();
        let thread = std::thread::spawn(move || worker.run());
        handle.ask(Command::Pause);
        handle.ask(Command::Pause);
        handle.send(Command::Resume);
        // From here on commands are woken for, not waited for: the pause is over.
        let (done, answer) = channel();
        handle.send(Command::Reset(0, done));
        answer.recv_timeout(Duration::from_secs(60)).unwrap();
        handle.send(Command::Stop);
        thread.join().unwrap();
    }
}
