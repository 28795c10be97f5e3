//! What a device is to the rest of the machine.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll;
use vmm_sys_util::eventfd::EventFd;

use super::ring::{Chain, Ring};
use crate::memory::Ram;

/// Bits of the features that every device here has: the 1.x interface, indirect descriptors, event indices.
pub(crate) const COMMON_FEATURES: u64 = 1 << 32 | 1 << 28 | 1 << 29;

/// How many chains of a queue are served before others have their turn.
pub(crate) const BUDGET: usize = 512;

/// A virtio device's own half: what it is, and what it does with its queues. It lives in a worker's thread.
pub(crate) trait Device: Send {
    /// The specification's device number.
    fn kind(&self) -> u32;

    /// Features beyond [`COMMON_FEATURES`].
    fn features(&self) -> u64;

    /// How long each queue may be.
    fn queues(&self) -> Vec<u16>;

    /// The configuration space, shared with the transport.
    fn config(&self) -> ConfigSpace;

    /// Whether a server elsewhere waits for kicks and interrupts by itself.
    fn served_elsewhere(&self) -> bool {
        false
    }

    /// The driver is ready.
    fn activate(&mut self, _active: &mut Active) -> io::Result<()> {
        Ok(())
    }

    /// The driver put something into this queue.
    fn kicked(&mut self, active: &mut Active, queue: usize);

    /// A descriptor registered in [`Active::poll`] is ready.
    fn ready(&mut self, _active: &mut Active, _event: u16, _flags: epoll::EventFlags) {}

    /// The driver lets go: what was registered is to be removed, and no queue touched after this.
    fn reset(&mut self, _active: &mut Active) {}
}

/// What a device has between its activation and its reset.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) ram: Arc<Ram>,
    pub(crate) rings: Vec<Ring>,
    pub(crate) kicks: Arc<[EventFd]>,
    pub(crate) interrupt: Interrupt,
    pub(crate) features: u64,
    pub(crate) poll: Poll,
}

impl Active {
    /// Serves what is in a queue: `each` says how many bytes it wrote. A guest that never stops is put off
    /// for a while now and then, so that other devices and commands have their turn.
    pub(crate) fn serve(
        &mut self,
        queue: usize,
        flush_each: bool,
        mut each: impl FnMut(&Ram, &Chain) -> u32,
    ) {
        let ram = self.ram.clone();
        for _ in 0..BUDGET {
            if let Some(chain) = self.rings[queue].next(&ram) {
                let written = each(&ram, &chain);
                self.rings[queue].put(&ram, chain, written);
                if flush_each {
                    self.flush(queue);
                }
                continue;
            }
            self.flush(queue);
            if !self.rings[queue].watch(&ram) {
                return;
            }
        }
        self.flush(queue);
        self.again(queue);
    }

    /// Has the queue looked at once more, after what else there is to do.
    pub(crate) fn again(&self, queue: usize) {
        let _ = self.kicks[queue].write(1);
    }

    /// Publishes what was put into a ring and interrupts the guest if it wants that.
    pub(crate) fn flush(&mut self, queue: usize) {
        if self.rings[queue].flush(&self.ram) {
            self.interrupt.used();
        }
    }
}

/// The device's way to interrupt the guest.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    status: Arc<AtomicU32>,
    line: Arc<EventFd>,
}

impl Interrupt {
    pub(crate) fn new(line: Arc<EventFd>) -> Interrupt {
        Interrupt { status: Arc::default(), line }
    }

    /// A queue has used buffers.
    pub(crate) fn used(&self) {
        self.raise(1);
    }

    /// The configuration space changed.
    pub(crate) fn config(&self) {
        self.raise(2);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // An eventfd that is full has been written to already.
        let _ = self.line.write(1);
    }

    pub(crate) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(crate) fn line(&self) -> &EventFd {
        &self.line
    }
}

/// A device's configuration space.
#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace {
    bytes: Arc<Mutex<Vec<u8>>>,
    generation: Arc<AtomicU32>,
    writable: Range<usize>,
}

impl ConfigSpace {
    /// `writable` is what the driver may change.
    pub(crate) fn new(bytes: Vec<u8>, writable: Range<usize>) -> ConfigSpace {
        ConfigSpace { bytes: Arc::new(Mutex::new(bytes)), generation: Arc::default(), writable }
    }

    /// What is behind the end reads as zero.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, byte) in buffer.iter_mut().enumerate() {
            *byte = bytes.get(offset + index).copied().unwrap_or(0);
        }
    }

    /// A write by the driver; what it may not change stays.
    pub(crate) fn driver_writes(&self, offset: usize, buffer: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, byte) in buffer.iter().enumerate() {
            if self.writable.contains(&(offset + index)) {
                bytes[offset + index] = *byte;
            }
        }
    }

    /// A change by the device; the driver is to be told.
    pub(crate) fn change(&self, offset: usize, buffer: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes[offset..offset + buffer.len()].copy_from_slice(buffer);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// A little-endian number in it.
    pub(crate) fn number(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

/// A device's part of its worker's epoll set.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    epoll: Arc<std::os::fd::OwnedFd>,
    slot: u16,
}

/// What is behind an event of a worker's epoll set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A queue's kick.
    Kick(u16),
    /// What the device registered.
    Device(u16),
}

impl Poll {
    pub(crate) fn new(epoll: Arc<std::os::fd::OwnedFd>, slot: u16) -> Poll {
        Poll { epoll, slot }
    }

    fn data(&self, source: Source) -> epoll::EventData {
        let (class, id) = match source {
            Source::Kick(id) => (0, id),
            Source::Device(id) => (1, id),
        };
        epoll::EventData::new_u64(u64::from(self.slot) << 32 | class << 16 | u64::from(id))
    }

    /// The other way round; `None` for what no `Poll` made.
    pub(crate) fn decode(data: u64) -> Option<(u16, Source)> {
        let slot = u16::try_from(data >> 32).ok()?;
        let id = data as u16;
        Some((slot, if data >> 16 & 1 == 0 { Source::Kick(id) } else { Source::Device(id) }))
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, self.data(source), flags)?)
    }

    pub(crate) fn change(&self, fd: impl AsFd, source: Source, flags: epoll::EventFlags) {
        // The descriptor was added before: nothing can fail that could be met.
        let _ = epoll::modify(&self.epoll, fd, self.data(source), flags);
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_changes_only_what_it_may() {
        let space = ConfigSpace::new(vec![1, 2, 3, 4], 2..3);
        space.driver_writes(0, &[9; 8]);
        let mut seen = [0xff; 6];
        space.read(0, &mut seen);
        assert_eq!(seen, [1, 2, 9, 4, 0, 0]);
    }
}
