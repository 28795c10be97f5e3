//! One virtqueue, seen from the device: chains come out checked, used buffers go back in batches.
//!
//! Everything in a queue is written by the guest and believed in nothing: whoever gets a [`Chain`] knows that
//! its spans exist, that what is readable comes before what is writable, and that it is of bounded length.

use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::{Ram, Span, total};

/// The most pieces of one chain, as many as one `readv` takes.
const MOST_SPANS: usize = 1024;

/// What a driver offers at once.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    head: u16,
    /// What the device reads, in order.
    pub(crate) readable: Vec<Span>,
    /// What the device writes, in order.
    pub(crate) writable: Vec<Span>,
}

impl Chain {
    pub(crate) fn writable_len(&self) -> usize {
        total(&self.writable)
    }

    pub(crate) fn readable_len(&self) -> usize {
        total(&self.readable)
    }
}

/// One queue in use.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    /// Used buffers written into the ring that the guest was not told of yet.
    staged: u16,
    /// `used->idx` at the last time that the question whether to interrupt was asked.
    asked: u16,
    /// The guest wrote what no driver writes; the queue is left alone until a reset.
    broken: bool,
    spare: Vec<Chain>,
    kept: Option<Chain>,
}

impl Ring {
    /// `queue` was found valid, or is not ready and will stay silent.
    pub(crate) fn new(queue: Queue) -> Ring {
        let asked = queue.next_used();
        Ring { queue, staged: 0, asked, broken: false, spare: Vec::new(), kept: None }
    }

    /// What a server elsewhere needs to know to use the queue itself.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The next chain, if there is one. A chain that is malformed goes straight back.
    pub(crate) fn next(&mut self, ram: &Ram) -> Option<Chain> {
        if self.broken || !self.queue.ready() {
            return None;
        }
        if let Some(chain) = self.kept.take() {
            return Some(chain);
        }
        // A queue's length at most: a guest that fills it meanwhile is served at the next turn.
        for _ in 0..self.queue.size() {
            let mut chain = self.spare.pop().unwrap_or_default();
            let Ok(mut available) = self.queue.iter(ram.map()) else {
                self.broken = true;
                return None;
            };
            let Some(descriptors) = available.next() else {
                self.spare.push(chain);
                return None;
            };
            chain.head = descriptors.head_index();
            if chain.head >= self.queue.size() {
                self.broken = true;
                return None;
            }
            if collect(&mut chain, descriptors, ram) {
                return Some(chain);
            }
            self.put(ram, chain, 0);
        }
        None
    }

    /// Takes back a chain that was not used: it is the next one again.
    pub(crate) fn keep(&mut self, chain: Chain) {
        debug_assert!(self.kept.is_none());
        self.kept = Some(chain);
    }

    /// Gives a chain back, `written` bytes of it written. The guest learns of it at [`Ring::flush`].
    pub(crate) fn put(&mut self, ram: &Ram, mut chain: Chain, written: u32) {
        let index = self.queue.next_used().wrapping_add(self.staged) % self.queue.size();
        let address = self.queue.used_ring().wrapping_add(4 + 8 * u64::from(index));
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(chain.head).to_le_bytes());
        element[4..].copy_from_slice(&written.to_le_bytes());
        self.broken |= !ram.write(address, &element);
        self.staged = self.staged.wrapping_add(1);
        chain.readable.clear();
        chain.writable.clear();
        self.spare.push(chain);
    }

    /// Publishes what was put; returns whether the guest wants to be interrupted for it.
    pub(crate) fn flush(&mut self, ram: &Ram) -> bool {
        if self.staged == 0 {
            return false;
        }
        let index = self.queue.next_used().wrapping_add(self.staged);
        self.staged = 0;
        self.queue.set_next_used(index);
        let place = GuestAddress(self.queue.used_ring().wrapping_add(2));
        self.broken |= ram.map().store(index.to_le(), place, Ordering::Release).is_err();
        // The index must be seen before the guest's wish is read.
        fence(Ordering::SeqCst);
        let before = std::mem::replace(&mut self.asked, index);
        if !self.queue.event_idx_enabled() {
            let flags = ram.map().load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
            return flags.is_ok_and(|flags| u16::from_le(flags) & 1 == 0);
        }
        let place = self.queue.avail_ring().wrapping_add(4 + 2 * u64::from(self.queue.size()));
        match ram.map().load::<u16>(GuestAddress(place), Ordering::Relaxed) {
            Ok(event) => index.wrapping_sub(u16::from_le(event)).wrapping_sub(1) < index.wrapping_sub(before),
            Err(_) => false,
        }
    }

    /// Asks to be kicked for the next chain; returns whether one came meanwhile, so that the caller looks again.
    pub(crate) fn watch(&mut self, ram: &Ram) -> bool {
        !self.broken && self.queue.ready() && self.queue.enable_notification(ram.map()).unwrap_or(false)
    }
}

/// Reads the descriptors of one chain; false if they are not what a driver writes.
fn collect(
    chain: &mut Chain,
    descriptors: impl Iterator<Item = virtio_queue::desc::split::Descriptor>,
    ram: &Ram,
) -> bool {
    for descriptor in descriptors {
        let span = Span { address: descriptor.addr().0, length: descriptor.len() };
        if span.length == 0 {
            continue;
        }
        if chain.readable.len() + chain.writable.len() == MOST_SPANS
            || !ram.contains(span.address, u64::from(span.length))
        {
            return false;
        }
        if descriptor.is_write_only() {
            chain.writable.push(span);
        } else if chain.writable.is_empty() {
            chain.readable.push(span);
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::virtio::driver::{BUFFERS, Driver, SIZE};
    use crate::virtio::rng::Rng;

    #[test]
    fn chains_come_out_in_order_and_go_back_in_one_batch() {
        let mut driver = Driver::new(&Rng);
        driver.offer(0, &[(BUFFERS, 10, false), (BUFFERS + 10, 20, true)]);
        driver.offer(0, &[(BUFFERS + 100, 30, true)]);
        let ram = driver.ram.clone();
        let ring = &mut driver.active.rings[0];
        let first = ring.next(&ram).unwrap();
        assert_eq!((first.readable_len(), first.writable_len()), (10, 20));
        let second = ring.next(&ram).unwrap();
        assert!(ring.next(&ram).is_none());
        ring.put(&ram, first, 5);
        ring.put(&ram, second, 6);
        assert!(driver.used(0).is_empty());
        assert!(driver.active.rings[0].flush(&ram));
        assert_eq!(driver.used(0), [5, 6]);
        assert!(!driver.active.rings[0].flush(&ram));
    }

    #[test]
    fn guest_that_wants_no_interrupt_gets_none() {
        let mut driver = Driver::new(&Rng);
        driver.offer(0, &[(BUFFERS, 8, true)]);
        assert!(driver.ram.write(0x400, &1_u16.to_le_bytes()));
        let ram = driver.ram.clone();
        let ring = &mut driver.active.rings[0];
        let chain = ring.next(&ram).unwrap();
        ring.put(&ram, chain, 8);
        assert!(!ring.flush(&ram));
    }

    #[test]
    fn malformed_chains_go_straight_back() {
        let mut driver = Driver::new(&Rng);
        // Readable behind writable, beyond memory, and one that is sound.
        driver.offer(0, &[(BUFFERS, 8, true), (BUFFERS, 8, false)]);
        driver.offer(0, &[(u64::MAX - 4, 8, true)]);
        driver.offer(0, &[(BUFFERS, 8, true)]);
        let ram = driver.ram.clone();
        let ring = &mut driver.active.rings[0];
        let chain = ring.next(&ram).unwrap();
        ring.put(&ram, chain, 8);
        ring.flush(&ram);
        assert_eq!(driver.used(0), [0, 0, 8]);
    }

    #[test]
    fn queue_with_more_chains_than_it_holds_is_left_alone() {
        let mut driver = Driver::new(&Rng);
        assert!(driver.ram.write(0x402, &(SIZE + 1).to_le_bytes()));
        let ram = driver.ram.clone();
        assert!(driver.active.rings[0].next(&ram).is_none());
        assert!(driver.ram.write(0x402, &1_u16.to_le_bytes()));
        assert!(driver.active.rings[0].next(&ram).is_none());
    }
}
