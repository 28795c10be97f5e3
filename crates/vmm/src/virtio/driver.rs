//! The other side of a device, for tests and fuzzing: a driver without a kernel, honest or not, on memory
//! without a machine.
#![cfg_attr(not(test), allow(dead_code, reason = "fuzz targets write queues themselves"))]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{Active, COMMON_FEATURES, Device, Interrupt, Poll};
use super::ring::Ring;
use crate::memory::Ram;

/// Entries of each queue here.
pub(crate) const SIZE: u16 = 16;
/// How far queues are apart.
const STRIDE: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
/// Where a test's buffers may be: behind all queues.
pub(crate) const BUFFERS: u64 = 0x1_0000;
/// How much memory there is.
pub(crate) const MEMORY: u64 = 32 << 20;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A device with its queues, and the driver's view of them.
pub(crate) struct Driver {
    pub(crate) ram: Arc<Ram>,
    pub(crate) active: Active,
    offered: Vec<u16>,
    seen: Vec<u16>,
    free: Vec<u16>,
}

/// One descriptor: address, length, whether the device writes it.
pub(crate) type Buffer = (u64, u32, bool);

/// A valid queue of [`SIZE`] entries in its place.
pub(crate) fn queue(index: usize, event_index: bool) -> Queue {
    let base = index as u64 * STRIDE;
    let mut queue = Queue::new(SIZE).expect("a power of two");
    queue.set_desc_table_address(Some(base as u32), None);
    queue.set_avail_ring_address(Some((base + AVAILABLE) as u32), None);
    queue.set_used_ring_address(Some((base + USED) as u32), None);
    queue.set_ready(true);
    queue.set_event_idx(event_index);
    queue
}

impl Driver {
    /// A driver that agreed to all of the device's features.
    pub(crate) fn new(device: &dyn Device) -> Driver {
        Driver::on(Arc::new(Ram::new(MEMORY).expect("memory")), device)
    }

    pub(crate) fn on(ram: Arc<Ram>, device: &dyn Device) -> Driver {
        let count = device.queues().len();
        let eventfd = || EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).expect("an eventfd");
        let epoll: Arc<OwnedFd> = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set"));
        let active = Active {
            ram: ram.clone(),
            rings: (0..count).map(|index| Ring::new(queue(index, false))).collect(),
            kicks: (0..count).map(|_| eventfd()).collect(),
            interrupt: Interrupt::new(Arc::new(eventfd())),
            features: device.features() | COMMON_FEATURES,
            poll: Poll::new(epoll, 0),
        };
        Driver { ram, active, offered: vec![0; count], seen: vec![0; count], free: vec![0; count] }
    }

    /// Puts a chain into a queue, from the next free descriptors on.
    pub(crate) fn offer(&mut self, queue: usize, buffers: &[Buffer]) {
        let base = queue as u64 * STRIDE;
        let head = self.free[queue];
        for (index, (address, length, write)) in buffers.iter().enumerate() {
            let here = self.free[queue];
            self.free[queue] = (here + 1) % SIZE;
            let mut flags = if *write { WRITE } else { 0 };
            if index + 1 < buffers.len() {
                flags |= NEXT;
            }
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(self.free[queue].to_le_bytes());
            assert!(self.ram.write(base + u64::from(here) * 16, &bytes));
        }
        let slot = u64::from(self.offered[queue] % SIZE);
        assert!(self.ram.write(base + AVAILABLE + 4 + 2 * slot, &head.to_le_bytes()));
        self.offered[queue] = self.offered[queue].wrapping_add(1);
        assert!(self.ram.write(base + AVAILABLE + 2, &self.offered[queue].to_le_bytes()));
    }

    /// Lengths of what came back since the last time.
    pub(crate) fn used(&mut self, queue: usize) -> Vec<u32> {
        let base = queue as u64 * STRIDE + USED;
        let mut index = [0; 2];
        assert!(self.ram.read(base + 2, &mut index));
        let mut lengths = Vec::new();
        while self.seen[queue] != u16::from_le_bytes(index) {
            let slot = u64::from(self.seen[queue] % SIZE);
            let mut length = [0; 4];
            assert!(self.ram.read(base + 4 + 8 * slot + 4, &mut length));
            lengths.push(u32::from_le_bytes(length));
            self.seen[queue] = self.seen[queue].wrapping_add(1);
        }
        lengths
    }

    /// Bytes of guest memory.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        assert!(self.ram.read(address, &mut bytes));
        bytes
    }
}
