//! The transport: one device's registers, as the virtio specification lays them out for memory-mapped I/O.
//!
//! Drivers come here to set a device up, and to see why they were interrupted; kicks do not (each queue's
//! kick is an eventfd that KVM signals by itself).

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};

use super::device::{COMMON_FEATURES, ConfigSpace, Device, Interrupt};
use super::ring::Ring;
use super::worker::{Command, Handle};
use crate::memory::Ram;

const MAGIC: u32 = 0x7472_6976;
const VENDOR: u32 = 0x6174_6163;
/// Where in the registers a queue is kicked.
pub(crate) const NOTIFY: u64 = 0x50;
const CONFIG: u64 = 0x100;

const ACKNOWLEDGE_TO_FEATURES_OK: u32 = 1 | 2 | 8;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 0x40;

/// One device's registers.
pub(crate) struct Transport {
    kind: u32,
    features: u64,
    config: ConfigSpace,
    interrupt: Interrupt,
    /// A server elsewhere interrupts by itself and sets no bit in the status: it always reads as set.
    always_used: bool,
    queues: Vec<Queue>,
    ram: Arc<Ram>,
    worker: Handle,
    slot: u16,
    status: u32,
    feature_page: u32,
    driver_page: u32,
    driver_features: u64,
    queue: usize,
    active: bool,
}

impl Transport {
    /// The registers of `device`, which lives in place `slot` of `worker`.
    pub(crate) fn new(
        device: &dyn Device,
        interrupt: Interrupt,
        ram: Arc<Ram>,
        worker: Handle,
        slot: u16,
    ) -> Transport {
        Transport {
            kind: device.kind(),
            // A server elsewhere has its own say in what is possible.
            features: if device.served_elsewhere() {
                device.features()
            } else {
                device.features() | COMMON_FEATURES
            },
            config: device.config(),
            interrupt,
            always_used: device.served_elsewhere(),
            queues: fresh(&device.queues()),
            ram,
            worker,
            slot,
            status: 0,
            feature_page: 0,
            driver_page: 0,
            driver_features: 0,
            queue: 0,
            active: false,
        }
    }

    /// A read of the driver's.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            return self.config.read((offset - CONFIG) as usize, data);
        }
        let value = self.register(offset).to_le_bytes();
        if data.len() == 4 {
            data.copy_from_slice(&value);
        } else {
            data.fill(0);
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue);
        match offset {
            0x00 => MAGIC,
            0x04 => 2,
            0x08 => self.kind,
            0x0c => VENDOR,
            0x10 => page(self.features, self.feature_page),
            0x34 => queue.map_or(0, |queue| u32::from(queue.max_size())),
            0x44 => queue.map_or(0, |queue| u32::from(queue.ready())),
            0x60 => self.interrupt.status() | u32::from(self.always_used),
            0x70 => self.status,
            // There is no shared memory region.
            0xb0..=0xbc => u32::MAX,
            0xfc => self.config.generation(),
            _ => 0,
        }
    }

    /// A write of the driver's.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            return self.config.driver_writes((offset - CONFIG) as usize, data);
        }
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x14 => self.feature_page = value,
            0x20 if self.status & FEATURES_OK == 0 => {
                let (low, high) = (self.driver_features & 0xffff_ffff, self.driver_features >> 32);
                match self.driver_page {
                    0 => self.driver_features = high << 32 | u64::from(value),
                    1 => self.driver_features = u64::from(value) << 32 | low,
                    _ => {}
                }
            }
            0x24 => self.driver_page = value,
            0x30 => self.queue = value as usize,
            0x64 => self.interrupt.acknowledge(value),
            0x70 => self.set_status(value),
            _ => self.set_queue(offset, value),
        }
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        // A queue in use stays where it is.
        if self.active || self.status & DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue) else { return };
        match offset {
            0x38 => queue.set_size(value as u16),
            0x44 => queue.set_ready(value == 1),
            0x80 => queue.set_desc_table_address(Some(value), None),
            0x84 => queue.set_desc_table_address(None, Some(value)),
            0x90 => queue.set_avail_ring_address(Some(value), None),
            0x94 => queue.set_avail_ring_address(None, Some(value)),
            0xa0 => queue.set_used_ring_address(Some(value), None),
            0xa4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        // Bits are only added.
        let mut new = self.status | value & 0xbf;
        if new & FEATURES_OK != 0 && self.status & FEATURES_OK == 0 {
            let (offered, agreed) = (self.features, self.driver_features);
            if agreed & !offered != 0 || agreed & 1 << 32 == 0 {
                new &= !FEATURES_OK;
            }
        }
        let starts = new & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        self.status = new;
        if starts {
            self.start();
        }
    }

    fn start(&mut self) {
        let negotiated = self.status & ACKNOWLEDGE_TO_FEATURES_OK == ACKNOWLEDGE_TO_FEATURES_OK;
        let sound = (self.queues.iter()).all(|queue| !queue.ready() || queue.is_valid(self.ram.map()));
        if !negotiated || !sound || self.active {
            self.status |= NEEDS_RESET;
            return;
        }
        let event_index = self.driver_features & 1 << 29 != 0;
        let sizes: Vec<u16> = self.queues.iter().map(Queue::max_size).collect();
        let queues = std::mem::replace(&mut self.queues, fresh(&sizes));
        let rings = queues.into_iter().map(|mut queue| {
            queue.set_event_idx(event_index);
            Ring::new(queue)
        });
        let rings = rings.collect();
        self.active = true;
        self.worker.send(Command::Activate { slot: self.slot, rings, features: self.driver_features });
    }

    fn reset(&mut self) {
        if self.active {
            self.worker.ask(|done| Command::Reset(self.slot, done));
        }
        let sizes: Vec<u16> = self.queues.iter().map(Queue::max_size).collect();
        self.queues = fresh(&sizes);
        self.interrupt.acknowledge(u32::MAX);
        (self.status, self.feature_page, self.driver_page) = (0, 0, 0);
        (self.driver_features, self.queue, self.active) = (0, 0, false);
    }
}

fn page(features: u64, page: u32) -> u32 {
    match page {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Queues as they are after a reset. Sizes are powers of two: devices name constants.
fn fresh(sizes: &[u16]) -> Vec<Queue> {
    sizes.iter().filter_map(|&size| Queue::new(size).ok()).collect()
}
