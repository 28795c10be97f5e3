//! The network card on a tap: whole frames with the virtio header go through as they are, checksums and
//! segmentation left to whoever ends up doing them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;

use super::device::{Active, BUDGET, ConfigSpace, Device, Source};
use super::ring::Chain;
use crate::kvm::tap;
use crate::memory::Span;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const TAP: u16 = 0;

/// The virtio header before each frame, with the count of buffers.
const HEADER: usize = 12;
/// The largest frame that the tap ever hands over, header included.
const LARGEST: usize = HEADER + 65_550;
/// Where in the header the count of buffers is.
const BUFFERS: usize = 10;

mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const GUEST_ECN: u64 = 1 << 9;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const HOST_ECN: u64 = 1 << 13;
    pub(super) const MERGE: u64 = 1 << 15;
}
use feature::*;

/// The network device.
pub(crate) struct Net {
    tap: OwnedFd,
    config: ConfigSpace,
    /// Buffers taken for the next frame: enough for the largest, or all there are.
    taken: Vec<Chain>,
    spans: Vec<Span>,
    room: usize,
    watched: bool,
}

impl Net {
    pub(crate) fn new(tap: OwnedFd, mac: [u8; 6], mtu: u16) -> io::Result<Net> {
        rustix::io::ioctl_fionbio(&tap, true)?;
        tap::set_header_size(tap.as_fd(), HEADER as i32)?;
        Ok(Net::with(tap, mac, mtu))
    }

    fn with(tap: OwnedFd, mac: [u8; 6], mtu: u16) -> Net {
        // mac, status, max_virtqueue_pairs, mtu
        let mut config = mac.to_vec();
        config.extend([0, 0, 0, 0]);
        config.extend(mtu.to_le_bytes());
        let config = ConfigSpace::new(config, 0..0);
        Net { tap, config, taken: Vec::new(), spans: Vec::new(), room: 0, watched: false }
    }

    /// A card on a socket that carries frames with their headers, for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn on_socket(socket: OwnedFd) -> Net {
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        Net::with(socket, [2, 0, 0, 0, 0, 1], 1500)
    }

    /// Frames from the tap into the guest, as long as there are both frames and room.
    fn receive(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        let merge = active.features & MERGE != 0;
        for _ in 0..BUDGET {
            if !self.take_room(active, merge) {
                active.flush(RECEIVE);
                if active.rings[RECEIVE].watch(&ram) {
                    continue;
                }
                return self.watch(active, false);
            }
            match ram.fill(self.tap.as_fd(), &self.spans, 0, usize::MAX, None) {
                Ok(length) => self.hand_over(active, length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing there, or the tap is down.
                Err(_) => {
                    active.flush(RECEIVE);
                    return self.watch(active, true);
                }
            }
        }
        active.flush(RECEIVE);
        active.again(RECEIVE);
    }

    /// Takes buffers until any frame fits; false if there are not enough.
    fn take_room(&mut self, active: &mut Active, merge: bool) -> bool {
        while self.room < LARGEST {
            let Some(chain) = active.rings[RECEIVE].next(&active.ram) else { return false };
            self.room += chain.writable_len();
            self.spans.extend(&chain.writable);
            self.taken.push(chain);
            if !merge || self.taken.len() == 512 {
                break;
            }
        }
        true
    }

    /// Gives back the buffers that `length` bytes went into; the rest waits for the next frame.
    fn hand_over(&mut self, active: &mut Active, length: usize) {
        let mut left = length;
        let mut used = 0;
        for chain in &self.taken {
            used += 1;
            left = left.saturating_sub(chain.writable_len());
            if left == 0 {
                break;
            }
        }
        active.ram.scatter(&self.spans, BUFFERS, &(used as u16).to_le_bytes());
        let mut left = length;
        for chain in self.taken.drain(..used) {
            let part = left.min(chain.writable_len());
            left -= part;
            active.rings[RECEIVE].put(&active.ram, chain, part as u32);
        }
        self.spans.clear();
        self.spans.extend(self.taken.iter().flat_map(|chain| &chain.writable));
        self.room = self.taken.iter().map(Chain::writable_len).sum();
    }

    fn watch(&mut self, active: &Active, wanted: bool) {
        if wanted != self.watched {
            self.watched = wanted;
            let flags = if wanted { EventFlags::IN } else { EventFlags::empty() };
            active.poll.change(&self.tap, Source::Device(TAP), flags | EventFlags::ET);
        }
    }

    fn transmit(&mut self, active: &mut Active) {
        let tap = self.tap.as_fd();
        active.serve(TRANSMIT, false, |ram, chain| {
            // A frame that the tap does not take is lost, as frames are.
            if chain.readable_len() > HEADER {
                let _ = ram.drain(tap, &chain.readable, 0, LARGEST, None);
            }
            0
        });
    }
}

impl Device for Net {
    fn kind(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        let host = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN;
        let guest = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
        host | guest | MERGE | MAC | MTU
    }

    fn queues(&self) -> Vec<u16> {
        vec![256, 256]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn activate(&mut self, active: &mut Active) -> io::Result<()> {
        let has = |feature| active.features & feature != 0;
        let mut offloads = 0;
        if has(GUEST_CSUM) {
            offloads |= tap::CSUM;
            offloads |= if has(GUEST_TSO4) { tap::TSO4 } else { 0 };
            offloads |= if has(GUEST_TSO6) { tap::TSO6 } else { 0 };
            offloads |= if has(GUEST_ECN) && has(GUEST_TSO4 | GUEST_TSO6) { tap::ECN } else { 0 };
        }
        // A tap that refuses hands over small frames with their sums filled in: any guest takes those.
        let _ = tap::set_offloads(self.tap.as_fd(), offloads);
        self.watched = true;
        active.poll.add(&self.tap, Source::Device(TAP), EventFlags::IN | EventFlags::ET)
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        match queue {
            TRANSMIT => self.transmit(active),
            _ => self.receive(active),
        }
    }

    fn ready(&mut self, active: &mut Active, _event: u16, _flags: EventFlags) {
        self.receive(active);
    }

    fn reset(&mut self, active: &mut Active) {
        active.poll.remove(&self.tap);
        self.taken.clear();
        self.spans.clear();
        self.room = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::virtio::driver::{BUFFERS, Driver};

    fn card() -> (Net, Driver, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut device = Net::on_socket(ours.into());
        let mut driver = Driver::new(&device);
        device.activate(&mut driver.active).unwrap();
        (device, driver, theirs)
    }

    #[test]
    fn frame_goes_out_with_its_header_in_one_piece() {
        let (mut device, mut driver, wire) = card();
        assert!(driver.ram.write(BUFFERS, &[0; 12]));
        assert!(driver.ram.write(BUFFERS + 100, b"frame"));
        driver.offer(TRANSMIT, &[(BUFFERS, 12, false), (BUFFERS + 100, 5, false)]);
        device.kicked(&mut driver.active, TRANSMIT);
        let mut frame = [0; 100];
        assert_eq!(wire.recv(&mut frame).unwrap(), 17);
        assert_eq!(&frame[12..17], b"frame");
        assert_eq!(driver.used(TRANSMIT), [0]);
    }

    #[test]
    fn large_frame_fills_several_buffers_and_says_how_many() {
        let (mut device, mut driver, wire) = card();
        // Room for the largest frame in nine buffers of 8 KiB, and one more.
        for index in 0..10 {
            driver.offer(RECEIVE, &[(BUFFERS + index * 0x2000, 0x2000, true)]);
        }
        let frame: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        wire.send(&frame).unwrap();
        wire.send(&[5; 60]).unwrap();
        device.kicked(&mut driver.active, RECEIVE);
        assert_eq!(driver.used(RECEIVE), [0x2000, 0x2000, 20_000 - 0x4000]);
        assert_eq!(driver.bytes(BUFFERS + BUFFERS_AT, 2), [3, 0]);
        assert_eq!(driver.bytes(BUFFERS + 0x2000, 2), frame[0x2000..0x2002]);
        // The second waits for room: what is left would not hold the largest one.
        for index in 10..13 {
            driver.offer(RECEIVE, &[(BUFFERS + index * 0x2000, 0x2000, true)]);
        }
        device.kicked(&mut driver.active, RECEIVE);
        assert_eq!(driver.used(RECEIVE), [60]);
        assert_eq!(driver.bytes(BUFFERS + 3 * 0x2000 + BUFFERS_AT, 2), [1, 0]);
    }

    const BUFFERS_AT: u64 = super::BUFFERS as u64;
}
