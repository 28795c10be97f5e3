//! What the fuzz targets drive, and the property tests with them: bytes that a hostile guest could have
//! written, given to a queue, a device's registers, or a device. Nothing may panic, hang, or reach beyond
//! guest memory.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::epoll::EventFlags;
use virtio_queue::QueueT as _;

use crate::ending::Ending;
use crate::memory::Ram;
use crate::virtio::balloon::Balloon;
use crate::virtio::block::Block;
use crate::virtio::console::{Console, LastWords};
use crate::virtio::device::{Device, Interrupt};
use crate::virtio::driver::{self, Driver};
use crate::virtio::fs::Fs;
use crate::virtio::mmio::Transport;
use crate::virtio::net::Net;
use crate::virtio::ring::Ring;
use crate::virtio::rng::Rng;
use crate::virtio::vsock::Vsock;
use crate::virtio::worker::Worker;

thread_local! {
    /// One memory for all runs: each overwrites what the one before left behind.
    static RAM: RefCell<Option<Arc<Ram>>> = const { RefCell::new(None) };
}

/// Guest memory with queues that devices find something in, out of few bytes: a fuzzer that had to hit upon the places
/// of queues would never leave the first line. For each of three queues how many chains are offered, descriptors in seven
/// bytes each and the chains' heads; the rest is what buffers hold.
pub fn image(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.iter().copied();
    let mut image = vec![0; driver::BUFFERS as usize];
    for queue in 0..3 {
        let Some(count) = bytes.next() else { break };
        let base = queue * 0x1000;
        // Mostly as many as there are; some say more.
        let offered = if count < 0xf0 { u16::from(count & 0xf) } else { u16::from(count) << 5 };
        for slot in 0..usize::from(count & 0xf) {
            let mut next = || bytes.next().unwrap_or_default();
            let (how, small, large) = (next(), next(), u32::from_le_bytes([next(), next(), next(), 0]));
            let address = match how >> 6 {
                0 | 1 => driver::BUFFERS + u64::from(small) * 16,
                2 => driver::MEMORY - u64::from(small),
                _ => u64::from(large) << (small & 0x3f),
            };
            let length = if how & 0x20 == 0 { large & 0xfff } else { large << 8 };
            let descriptor = &mut image[base + slot * 16..base + slot * 16 + 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&length.to_le_bytes());
            descriptor[12..14].copy_from_slice(&u16::from(how & 7).to_le_bytes());
            descriptor[14..].copy_from_slice(&u16::from(next() & 0x1f).to_le_bytes());
            let head = base + 0x404 + slot * 2;
            image[head..head + 2].copy_from_slice(&u16::from(next() & 0x1f).to_le_bytes());
        }
        image[base + 0x402..base + 0x404].copy_from_slice(&offered.to_le_bytes());
    }
    image.extend(bytes);
    image
}

/// Guest memory that begins with `data`; the rest is zero, or left over.
fn memory(data: &[u8]) -> Arc<Ram> {
    RAM.with_borrow_mut(|ram| {
        let ram = ram.get_or_insert_with(|| Arc::new(Ram::new(driver::MEMORY).expect("memory")));
        let mut image = vec![0; 0x2_0000];
        let length = data.len().min(image.len());
        image[..length].copy_from_slice(&data[..length]);
        assert!(ram.write(0, &image));
        ram.clone()
    })
}

/// A queue whose every byte is foreign: chains that come out are within memory and in order.
pub fn ring(data: &[u8]) {
    let ram = memory(data);
    let event_index = data.first().is_some_and(|byte| byte & 1 == 0);
    let mut ring = Ring::new(driver::queue(0, event_index));
    for _ in 0..64 {
        let Some(chain) = ring.next(&ram) else { break };
        for span in chain.readable.iter().chain(&chain.writable) {
            assert!(ram.contains(span.address, u64::from(span.length)));
        }
        assert!(chain.readable.len() + chain.writable.len() <= 1024);
        ring.put(&ram, chain, 1);
        ring.flush(&ram);
        ring.watch(&ram);
    }
}

/// A device whose queues and buffers are foreign.
fn device(data: &[u8], mut device: impl Device) {
    let ram = memory(data);
    let mut driver = Driver::on(ram.clone(), &device);
    if device.activate(&mut driver.active).is_err() {
        return;
    }
    for _ in 0..3 {
        for queue in 0..driver.active.rings.len() {
            device.kicked(&mut driver.active, queue);
        }
        for event in 0..2 {
            device.ready(&mut driver.active, event, EventFlags::IN | EventFlags::OUT);
        }
    }
    device.reset(&mut driver.active);
}

fn socket() -> OwnedFd {
    let (ours, theirs) = UnixDatagram::pair().expect("a socket pair");
    // Something to receive, of two sizes.
    let _ = (theirs.send(&[1; 60]), theirs.send(&[2; 3000]));
    theirs.set_nonblocking(true).expect("a socket");
    ours.into()
}

/// Console and channel.
pub fn console(data: &[u8]) {
    let sink = rustix::fs::memfd_create("sink", rustix::fs::MemfdFlags::CLOEXEC).expect("a sink");
    device(data, Console::new(Some(sink), Some(socket()), LastWords::default()).expect("a console"));
}

/// Disk requests.
pub fn block(data: &[u8]) {
    let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).expect("a disk");
    rustix::fs::ftruncate(&file, 1 << 20).expect("a disk");
    let read_only = data.last().is_some_and(|byte| byte & 1 == 1);
    device(data, Block::new(file, read_only, "serial".into()).expect("a disk"));
}

/// Frames both ways.
pub fn net(data: &[u8]) {
    device(data, Net::on_socket(socket()));
}

/// Packets of sockets, one of which somebody on the host wants to be connected with port 5.
pub fn vsock(data: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("cata-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a name of its own");
    let mut caller = UnixStream::connect_addr(&address).expect("it listens");
    caller.write_all(b"CONNECT 5\nhello").expect("a socket");
    device(data, Vsock::new(3, listener.into()).expect("a device"));
}

/// Pages to discard.
pub fn balloon(data: &[u8]) {
    device(data, Balloon::new());
}

/// Requests for entropy.
pub fn rng(data: &[u8]) {
    device(data, Rng);
}

/// A file system's queues, wherever the driver says that they are, and a server that answers as it should, or
/// anything: 32 bytes of the driver's (for each queue its size and the addresses of its parts), then the server's.
pub fn fs(data: &[u8]) {
    let _ = introduced(data);
}

/// Whether the server took it.
fn introduced(data: &[u8]) -> bool {
    let ram = memory(&[]);
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let (driver, server) = data.split_at(data.len().min(32));
    let answers = if server.is_empty() { honest(data.len().is_multiple_of(2)) } else { server.to_vec() };
    // What it says is there at once, and then its end.
    (&theirs).write_all(&answers).expect("a socket");
    theirs.shutdown(Shutdown::Write).expect("a socket");
    let Ok(ending) = Ending::new() else { return false };
    let Ok(mut device) = Fs::new("deck", ours.into(), ending) else { return false };
    let mut active = Driver::on(ram.clone(), &device).active;
    for (ring, place) in active.rings.iter_mut().zip(driver.chunks_exact(16)) {
        let word = |at: usize| u32::from_le_bytes([place[at], place[at + 1], place[at + 2], place[at + 3]]);
        let mut queue = driver::queue(0, false);
        queue.set_size(word(0) as u16);
        queue.set_desc_table_address(Some(word(4)), Some(word(0) >> 31));
        queue.set_avail_ring_address(Some(word(8)), None);
        queue.set_used_ring_address(Some(word(12)), None);
        // As the registers do before a device hears of it.
        if queue.is_valid(ram.map()) {
            *ring = Ring::new(queue);
        }
    }
    let taken = device.activate(&mut active).is_ok();
    if taken {
        device.reset(&mut active);
    }
    taken
}

/// What a file server says when all goes well.
fn honest(protocol: bool) -> Vec<u8> {
    const PROTOCOL_FEATURES: u64 = 1 << 30;
    let features = 1 << 32 | if protocol { PROTOCOL_FEATURES } else { 0 };
    let mut told = vec![(1, features)];
    if protocol {
        told.push((15, 1));
    }
    told.extend([(11, 0), (11, 1)]);
    let words = |(request, body): (u32, u64)| {
        let head = [request, 5, 8].map(u32::to_le_bytes).concat();
        [head, body.to_le_bytes().to_vec()].concat()
    };
    told.into_iter().flat_map(words).collect()
}

/// A sequence of register accesses: an offset, a width, a value.
pub fn registers(data: &[u8]) {
    let ram = memory(&[]);
    let Ok(line) = vmm_sys_util::eventfd::EventFd::new(0) else { return };
    let Ok(worker) = Worker::new(ram.clone()) else { return };
    let handle = worker.handle();
    let device = Balloon::new();
    let mut transport = Transport::new(&device, Interrupt::new(Arc::new(line)), ram, handle, 0);
    // Nobody serves the worker: it is gone, and those who ask it do not wait.
    drop(worker);
    for access in data.chunks_exact(8) {
        let offset = u64::from(u16::from_le_bytes([access[0], access[1]]) & 0xfff);
        let width = [1, 2, 4, 4, 8][usize::from(access[2]) % 5];
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&access[4..]);
        if access[3] & 1 == 0 {
            transport.write(offset, &bytes[..width]);
        } else {
            transport.read(offset, &mut bytes[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    type Target = fn(&[u8]);
    const TARGETS: [(&str, Target); 9] = [
        ("ring", super::ring),
        ("console", super::console),
        ("block", super::block),
        ("net", super::net),
        ("balloon", super::balloon),
        ("rng", super::rng),
        ("fs", super::fs),
        ("vsock", super::vsock),
        ("registers", super::registers),
    ];

    /// Queues that are nearly sound: descriptors point near memory's edges, rings name them.
    fn image() -> impl Strategy<Value = Vec<u8>> {
        let address = prop_oneof![0..0x2_0000_u64, 0x1ff_f000..0x200_1000_u64, any::<u64>()];
        let length = prop_oneof![0..64_u32, 0..0x1_0000_u32, any::<u32>()];
        let descriptor = (address, length, 0..8_u16, 0..20_u16);
        let queue = (
            proptest::collection::vec(descriptor, 16),
            any::<u16>(),
            0..20_u16,
            proptest::collection::vec(0..18_u16, 16),
        );
        proptest::collection::vec(queue, 6).prop_map(|queues| {
            let mut image = vec![0; 0x1_0000];
            for (index, (descriptors, flags, count, heads)) in queues.into_iter().enumerate() {
                let queue = &mut image[index * 0x1000..];
                for (slot, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
                    queue[slot * 16..slot * 16 + 8].copy_from_slice(&address.to_le_bytes());
                    queue[slot * 16 + 8..slot * 16 + 12].copy_from_slice(&length.to_le_bytes());
                    queue[slot * 16 + 12..slot * 16 + 14].copy_from_slice(&flags.to_le_bytes());
                    queue[slot * 16 + 14..slot * 16 + 16].copy_from_slice(&next.to_le_bytes());
                }
                queue[0x400..0x402].copy_from_slice(&flags.to_le_bytes());
                queue[0x402..0x404].copy_from_slice(&count.to_le_bytes());
                for (slot, head) in heads.into_iter().enumerate() {
                    queue[0x404 + slot * 2..0x406 + slot * 2].copy_from_slice(&head.to_le_bytes());
                }
            }
            image
        })
    }

    #[test]
    fn file_server_that_answers_as_it_should_is_introduced_and_one_that_does_not_is_not() {
        assert!(super::introduced(&[]));
        assert!(super::introduced(&[0]));
        assert!(!super::introduced(&[0; 64]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn nearly_sound_queues_harm_nobody(image in image()) {
            TARGETS.iter().for_each(|(_, target)| target(&image));
        }

        #[test]
        fn images_of_noise_harm_nobody(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            let image = super::image(&noise);
            TARGETS.iter().for_each(|(_, target)| target(&image));
        }

        #[test]
        fn noise_harms_nobody(noise in proptest::collection::vec(any::<u8>(), 0..4096)) {
            TARGETS.iter().for_each(|(_, target)| target(&noise));
        }
    }
}
