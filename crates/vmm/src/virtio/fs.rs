//! A file system whose server is another process: only the introduction is made here. From then on the guest
//! kicks the server and the server interrupts the guest, through KVM, without this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::device::{Active, COMMON_FEATURES, ConfigSpace, Device, Source};
use crate::ending::Ending;
use crate::error::End;

/// High priority, requests.
const QUEUES: usize = 2;

/// The file system device.
pub(crate) struct Fs {
    tag: String,
    server: Frontend,
    /// The same socket, to see its end.
    socket: OwnedFd,
    config: ConfigSpace,
    features: u64,
    ending: Ending,
}

impl Fs {
    pub(crate) fn new(tag: &str, socket: OwnedFd, ending: Ending) -> io::Result<Fs> {
        let watched = socket.try_clone()?;
        let server = Frontend::from_stream(UnixStream::from(socket), QUEUES as u64);
        server.set_owner().map_err(io::Error::other)?;
        let offered = server.get_features().map_err(io::Error::other)?;
        let mut config = tag.as_bytes().to_vec();
        config.resize(36, 0);
        config.extend((QUEUES as u32 - 1).to_le_bytes());
        let config = ConfigSpace::new(config, 0..0);
        Ok(Fs { tag: tag.to_owned(), server, socket: watched, config, features: offered, ending })
    }

    /// Tells the server where memory and queues are.
    fn introduce(&mut self, active: &mut Active) -> Result<(), vhost::Error> {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.server.set_features(active.features & self.features | self.features & protocol)?;
        if self.features & protocol != 0 {
            let offered = self.server.get_protocol_features()?;
            let known = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
            self.server.set_protocol_features(offered & known)?;
        }
        let regions: Result<Vec<_>, _> =
            active.ram.map().iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
        self.server.set_mem_table(&regions?)?;
        for (index, ring) in active.rings.iter().enumerate() {
            let queue = ring.queue();
            if !queue.ready() {
                continue;
            }
            let host = |address| {
                let place = active.ram.map().get_host_address(GuestAddress(address));
                place.map(|place| place as u64).map_err(|_| vhost::Error::InvalidQueue)
            };
            self.server.set_vring_num(index, queue.size())?;
            let config = VringConfigData {
                queue_max_size: queue.max_size(),
                queue_size: queue.size(),
                flags: 0,
                desc_table_addr: host(queue.desc_table())?,
                used_ring_addr: host(queue.used_ring())?,
                avail_ring_addr: host(queue.avail_ring())?,
                log_addr: None,
            };
            self.server.set_vring_addr(index, &config)?;
            self.server.set_vring_base(index, 0)?;
            self.server.set_vring_call(index, active.interrupt.line())?;
            self.server.set_vring_kick(index, &active.kicks[index])?;
            if self.features & protocol != 0 {
                self.server.set_vring_enable(index, true)?;
            }
        }
        Ok(())
    }

    fn lost(&self) {
        self.ending.set(End::FileServerLost(self.tag.clone()));
    }
}

impl Device for Fs {
    fn kind(&self) -> u32 {
        26
    }

    fn features(&self) -> u64 {
        // Of the common ones, those that the server has as well.
        self.features & COMMON_FEATURES
    }

    fn queues(&self) -> Vec<u16> {
        vec![128, 1024]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn served_elsewhere(&self) -> bool {
        true
    }

    fn activate(&mut self, active: &mut Active) -> io::Result<()> {
        if let Err(error) = self.introduce(active) {
            self.lost();
            return Err(io::Error::other(error));
        }
        let flags = EventFlags::RDHUP | EventFlags::ONESHOT;
        active.poll.add(self.socket.as_fd(), Source::Device(0), flags)
    }

    fn kicked(&mut self, _active: &mut Active, _queue: usize) {}

    fn ready(&mut self, _active: &mut Active, _event: u16, _flags: EventFlags) {
        self.lost();
    }

    fn reset(&mut self, active: &mut Active) {
        active.poll.remove(self.socket.as_fd());
        for index in 0..QUEUES {
            // A queue that the server still uses is stopped by asking where it stands.
            if active.rings[index].queue().ready() {
                let _ = self.server.get_vring_base(index);
            }
        }
    }
}
