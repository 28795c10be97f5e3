//! Console and channel: one device with two ports. Port 0 is the kernel's console (`hvc0`), port 1 a byte
//! stream named `cata.channel` with back pressure both ways.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll::EventFlags;

use super::device::{Active, BUDGET, ConfigSpace, Device, Source};
use super::ring::Chain;
use crate::memory::Ram;

const MULTIPORT: u64 = 1 << 1;
const CONSOLE_OUT: usize = 1;
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
const CHANNEL_IN: usize = 4;
const CHANNEL_OUT: usize = 5;

/// The channel's name: `/sys/class/virtio-ports/*/name`.
const NAME: &[u8] = b"cata.channel\0";

/// What one `write` to the console takes at most, so that it never blocks once it is ready.
const AT_ONCE: usize = 4096;
/// The channel's socket as an event.
const SOCKET: u16 = 0;
/// The console's sink as an event.
const SINK: u16 = 1;

/// Events of the control queue.
mod control {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// What a kernel said when it gave up, if it did.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<String>>>);

impl LastWords {
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Looks for a panic in the stream of a kernel's log.
struct Listener {
    line: Vec<u8>,
    words: LastWords,
}

impl Listener {
    const LONGEST: usize = 240;
    const PANIC: &str = "Kernel panic - not syncing: ";

    fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.line_ends();
            } else if self.line.len() < Self::LONGEST {
                self.line.push(byte);
            }
        }
    }

    fn line_ends(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if let Some((_, reason)) = line.split_once(Self::PANIC) {
            let printable = reason.chars().filter(|c| !c.is_control()).collect();
            self.words.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(printable);
        }
        self.line.clear();
    }
}

/// A chain of which a part is already on its way.
struct Pending {
    chain: Chain,
    done: usize,
}

/// The device with both ports.
pub(crate) struct Console {
    config: ConfigSpace,
    sink: Option<OwnedFd>,
    socket: Option<OwnedFd>,
    listener: Listener,
    /// Messages for the driver that its control queue had no room for.
    messages: Vec<(u32, u16, u16)>,
    console_out: Option<Pending>,
    channel_out: Option<Pending>,
    /// The guest has the channel open: only then may it be sent anything.
    guest_open: bool,
    socket_flags: EventFlags,
}

impl Console {
    /// `sink` takes the console's output, `socket` is the channel.
    pub(crate) fn new(
        sink: Option<OwnedFd>,
        socket: Option<OwnedFd>,
        words: LastWords,
    ) -> io::Result<Console> {
        if let Some(socket) = &socket {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        let mut config = vec![0; 12];
        config[4] = 2;
        Ok(Console {
            config: ConfigSpace::new(config, 0..0),
            sink,
            socket,
            listener: Listener { line: Vec::new(), words },
            messages: Vec::new(),
            console_out: None,
            channel_out: None,
            guest_open: false,
            socket_flags: EventFlags::empty(),
        })
    }

    /// Output of the console's port: to the sink, as far as it takes it.
    fn print(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        for _ in 0..BUDGET {
            let Some(mut pending) =
                self.console_out.take().or_else(|| active.rings[CONSOLE_OUT].next(&ram).map(Pending::new))
            else {
                active.flush(CONSOLE_OUT);
                if !active.rings[CONSOLE_OUT].watch(&ram) {
                    return;
                }
                continue;
            };
            if pending.done == 0 {
                self.listen(&ram, &pending.chain);
            }
            if !self.print_one(&ram, &mut pending) {
                self.console_out = Some(pending);
                active.flush(CONSOLE_OUT);
                return self.wait_for_sink(active);
            }
            active.rings[CONSOLE_OUT].put(&ram, pending.chain, 0);
        }
        active.flush(CONSOLE_OUT);
        active.again(CONSOLE_OUT);
    }

    fn listen(&mut self, ram: &Ram, chain: &Chain) {
        let mut text = [0; 512];
        let mut skip = 0;
        // A kernel writes lines; what is longer than this is no kernel's.
        while skip < 1 << 16 {
            let got = ram.gather(&chain.readable, skip, &mut text);
            self.listener.hear(&text[..got]);
            if got < text.len() {
                return;
            }
            skip += got;
        }
    }

    /// False if the sink takes no more now. A sink that fails is let go, and the log with it.
    fn print_one(&mut self, ram: &Ram, pending: &mut Pending) -> bool {
        while let Some(sink) = &self.sink {
            if pending.done == pending.chain.readable_len() {
                break;
            }
            if !writable(sink) {
                return false;
            }
            match ram.drain(sink.as_fd(), &pending.chain.readable, pending.done, AT_ONCE, None) {
                Ok(0) => self.sink = None,
                Ok(count) => pending.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.sink = None,
            }
        }
        true
    }

    fn wait_for_sink(&self, active: &Active) {
        if let Some(sink) = &self.sink {
            let flags = EventFlags::OUT | EventFlags::ONESHOT;
            if active.poll.add(sink, Source::Device(SINK), flags).is_err() {
                active.poll.change(sink, Source::Device(SINK), flags);
            }
        }
    }

    /// From the guest to the socket.
    fn send(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        for _ in 0..BUDGET {
            let Some(mut pending) =
                self.channel_out.take().or_else(|| active.rings[CHANNEL_OUT].next(&ram).map(Pending::new))
            else {
                active.flush(CHANNEL_OUT);
                if !active.rings[CHANNEL_OUT].watch(&ram) {
                    return;
                }
                continue;
            };
            let Some(socket) = &self.socket else {
                active.rings[CHANNEL_OUT].put(&ram, pending.chain, 0);
                continue;
            };
            let sent = match pending.chain.readable_len() == pending.done {
                true => Ok(0),
                false => ram.drain(socket.as_fd(), &pending.chain.readable, pending.done, usize::MAX, None),
            };
            match sent {
                Ok(count) => pending.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.channel_out = Some(pending);
                    active.flush(CHANNEL_OUT);
                    return self.want(active);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.hang_up(active),
            }
            if pending.done < pending.chain.readable_len() {
                self.channel_out = Some(pending);
            } else {
                active.rings[CHANNEL_OUT].put(&ram, pending.chain, 0);
            }
        }
        active.flush(CHANNEL_OUT);
        active.again(CHANNEL_OUT);
    }

    /// From the socket to the guest, as long as it offers room.
    fn receive(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        let mut left = BUDGET;
        while self.guest_open && self.socket.is_some() {
            left -= 1;
            if left == 0 {
                active.again(CHANNEL_IN);
                break;
            }
            let Some(chain) = active.rings[CHANNEL_IN].next(&ram) else {
                if active.rings[CHANNEL_IN].watch(&ram) {
                    continue;
                }
                active.flush(CHANNEL_IN);
                // Without room the socket is not watched: the guest's next buffer is the signal.
                return self.watch(active, EventFlags::empty());
            };
            let Some(socket) = &self.socket else { return };
            match ram.fill(socket.as_fd(), &chain.writable, 0, usize::MAX, None) {
                Ok(0) if chain.writable_len() > 0 => {
                    active.rings[CHANNEL_IN].keep(chain);
                    self.hang_up(active);
                }
                Ok(count) => active.rings[CHANNEL_IN].put(&ram, chain, count as u32),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    active.rings[CHANNEL_IN].keep(chain);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    active.rings[CHANNEL_IN].keep(chain);
                }
                Err(_) => {
                    active.rings[CHANNEL_IN].keep(chain);
                    self.hang_up(active);
                }
            }
        }
        active.flush(CHANNEL_IN);
        self.watch(active, EventFlags::IN);
    }

    /// Watches the socket for what is possible now, and for room if output waits for it.
    fn watch(&mut self, active: &Active, input: EventFlags) {
        let Some(socket) = &self.socket else { return };
        let mut flags = if self.guest_open { input } else { EventFlags::empty() };
        if self.channel_out.is_some() {
            flags |= EventFlags::OUT;
        }
        if flags != self.socket_flags {
            self.socket_flags = flags;
            // ET: a hang-up, which cannot be masked, is told once and not for ever.
            active.poll.change(socket, Source::Device(SOCKET), flags | EventFlags::ET);
        }
    }

    fn want(&mut self, active: &Active) {
        let input = self.socket_flags & EventFlags::IN;
        self.watch(active, input);
    }

    /// The host's end is gone: the guest sees its port closed.
    fn hang_up(&mut self, active: &mut Active) {
        if let Some(socket) = self.socket.take() {
            active.poll.remove(&socket);
            self.tell(active, 1, control::PORT_OPEN, 0);
        }
    }

    fn tell(&mut self, active: &mut Active, port: u32, event: u16, value: u16) {
        // A driver makes room for each answer; one that does not, and asks on, is not remembered for ever.
        if self.messages.len() < 64 {
            self.messages.push((port, event, value));
        }
        self.deliver(active);
    }

    fn deliver(&mut self, active: &mut Active) {
        let ram = active.ram.clone();
        while let Some(&(port, event, value)) = self.messages.first() {
            let Some(chain) = active.rings[CONTROL_IN].next(&ram) else {
                if active.rings[CONTROL_IN].watch(&ram) {
                    continue;
                }
                break;
            };
            let mut message = Vec::with_capacity(8 + NAME.len());
            message.extend(port.to_le_bytes());
            message.extend(event.to_le_bytes());
            message.extend(value.to_le_bytes());
            if event == control::PORT_NAME {
                message.extend(NAME);
            }
            let written = ram.scatter(&chain.writable, 0, &message);
            active.rings[CONTROL_IN].put(&ram, chain, written as u32);
            self.messages.remove(0);
        }
        active.flush(CONTROL_IN);
    }

    /// A message of the driver's.
    fn control(&mut self, active: &mut Active, message: [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = message;
        let (port, event, value) =
            (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
        match (event, port) {
            (control::DEVICE_READY, _) if value == 1 => {
                self.tell(active, 0, control::PORT_ADD, 1);
                self.tell(active, 1, control::PORT_ADD, 1);
            }
            (control::PORT_READY, 0) if value == 1 => self.tell(active, 0, control::CONSOLE_PORT, 1),
            (control::PORT_READY, 1) if value == 1 => {
                self.tell(active, 1, control::PORT_NAME, 1);
                self.tell(active, 1, control::PORT_OPEN, u16::from(self.socket.is_some()));
            }
            (control::PORT_OPEN, 1) => {
                self.guest_open = value == 1;
                self.receive(active);
            }
            _ => {}
        }
    }

    fn control_queue(&mut self, active: &mut Active) {
        let mut messages = Vec::new();
        active.serve(CONTROL_OUT, false, |ram, chain| {
            let mut message = [0; 8];
            if ram.gather(&chain.readable, 0, &mut message) == message.len() {
                messages.push(message);
            }
            0
        });
        for message in messages {
            self.control(active, message);
        }
    }
}

impl Pending {
    fn new(chain: Chain) -> Pending {
        Pending { chain, done: 0 }
    }
}

impl Device for Console {
    fn kind(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queues(&self) -> Vec<u16> {
        vec![16, 64, 16, 16, 64, 64]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn activate(&mut self, active: &mut Active) -> io::Result<()> {
        self.socket_flags = EventFlags::empty();
        if let Some(socket) = &self.socket {
            active.poll.add(socket, Source::Device(SOCKET), EventFlags::ET)?;
        }
        Ok(())
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        match queue {
            CONSOLE_OUT => self.print(active),
            CONTROL_IN => self.deliver(active),
            CONTROL_OUT => self.control_queue(active),
            CHANNEL_IN => self.receive(active),
            CHANNEL_OUT => self.send(active),
            // The console has no input.
            _ => {}
        }
    }

    fn ready(&mut self, active: &mut Active, event: u16, flags: EventFlags) {
        if event == SINK {
            return self.print(active);
        }
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            self.send(active);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive(active);
        }
        self.want(active);
    }

    fn reset(&mut self, active: &mut Active) {
        for fd in self.socket.iter().chain(&self.sink) {
            active.poll.remove(fd);
        }
        self.messages.clear();
        (self.console_out, self.channel_out, self.guest_open) = (None, None, false);
    }
}

/// Whether a write of a page is taken at once. What cannot be polled, a file, always is.
fn writable(sink: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut list = [PollFd::new(sink, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut list, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_hears_a_panic_across_pieces() {
        let words = LastWords::default();
        let mut listener = Listener { line: Vec::new(), words: words.clone() };
        listener.hear(b"[    0.5] quiet\n[    1.0] Kernel panic - not sync");
        assert_eq!(words.get(), None);
        listener.hear(b"ing: VFS: Unable to mount\r\n");
        listener.hear(b"Kernel panic - not syncing: second\n");
        assert_eq!(words.get().as_deref(), Some("VFS: Unable to mount"));
    }
}

#[cfg(test)]
mod port_tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::virtio::driver::{BUFFERS, Driver};

    struct Ports {
        device: Console,
        driver: Driver,
        sink: File,
        host: UnixStream,
    }

    fn ports() -> Ports {
        let sink = File::from(rustix::fs::memfd_create("sink", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let (ours, host) = UnixStream::pair().unwrap();
        let copy = sink.try_clone().unwrap().into();
        let mut device = Console::new(Some(copy), Some(ours.into()), LastWords::default()).unwrap();
        let mut driver = Driver::new(&device);
        device.activate(&mut driver.active).unwrap();
        Ports { device, driver, sink, host }
    }

    impl Ports {
        fn control(&mut self, port: u32, event: u16, value: u16) {
            let mut message = port.to_le_bytes().to_vec();
            message.extend(event.to_le_bytes());
            message.extend(value.to_le_bytes());
            assert!(self.driver.ram.write(BUFFERS, &message));
            self.driver.offer(CONTROL_OUT, &[(BUFFERS, 8, false)]);
            self.device.kicked(&mut self.driver.active, CONTROL_OUT);
        }

        /// Gives room for one answer and reads it.
        fn answer(&mut self) -> Vec<u8> {
            self.driver.offer(CONTROL_IN, &[(BUFFERS + 0x100, 64, true)]);
            self.device.kicked(&mut self.driver.active, CONTROL_IN);
            match self.driver.used(CONTROL_IN)[..] {
                [length] => self.driver.bytes(BUFFERS + 0x100, length as usize),
                _ => Vec::new(),
            }
        }

        fn open(&mut self) {
            self.control(1, control::PORT_OPEN, 1);
        }
    }

    #[test]
    fn ports_are_introduced_one_message_at_a_time() {
        let mut ports = ports();
        ports.control(0, control::DEVICE_READY, 1);
        assert_eq!(ports.answer(), [0, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(ports.answer(), [1, 0, 0, 0, 1, 0, 1, 0]);
        ports.control(1, control::PORT_READY, 1);
        assert_eq!(&ports.answer()[8..], NAME);
        assert_eq!(ports.answer(), [1, 0, 0, 0, 6, 0, 1, 0]);
        assert!(ports.answer().is_empty());
    }

    #[test]
    fn console_output_reaches_the_sink() {
        let mut ports = ports();
        assert!(ports.driver.ram.write(BUFFERS, b"hello\n"));
        ports.driver.offer(CONSOLE_OUT, &[(BUFFERS, 6, false)]);
        ports.device.kicked(&mut ports.driver.active, CONSOLE_OUT);
        let mut text = String::new();
        ports.sink.rewind().unwrap();
        ports.sink.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), ports.driver.used(CONSOLE_OUT)), ("hello\n", vec![0]));
    }

    #[test]
    fn channel_carries_bytes_only_once_the_guest_has_opened_it() {
        let mut ports = ports();
        ports.host.write_all(b"to the guest").unwrap();
        ports.driver.offer(CHANNEL_IN, &[(BUFFERS + 0x200, 4096, true)]);
        ports.device.kicked(&mut ports.driver.active, CHANNEL_IN);
        assert!(ports.driver.used(CHANNEL_IN).is_empty());
        ports.open();
        assert_eq!(ports.driver.used(CHANNEL_IN), [12]);
        assert_eq!(ports.driver.bytes(BUFFERS + 0x200, 12), b"to the guest");
        assert!(ports.driver.ram.write(BUFFERS, b"to the host"));
        ports.driver.offer(CHANNEL_OUT, &[(BUFFERS, 11, false)]);
        ports.device.kicked(&mut ports.driver.active, CHANNEL_OUT);
        let mut bytes = [0; 11];
        ports.host.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"to the host");
    }

    #[test]
    fn full_socket_holds_the_guest_back_and_loses_nothing() {
        let mut ports = ports();
        ports.open();
        let mut offered = 0_usize;
        // As much as the socket takes, and one more that waits.
        while ports.device.channel_out.is_none() {
            assert!(ports.driver.ram.write(BUFFERS, &[offered as u8; 60_000]));
            ports.driver.offer(CHANNEL_OUT, &[(BUFFERS, 60_000, false)]);
            ports.device.kicked(&mut ports.driver.active, CHANNEL_OUT);
            offered += 1;
        }
        assert_eq!(ports.driver.used(CHANNEL_OUT).len(), offered - 1);
        let mut received = 0;
        let mut bytes = vec![0; 1 << 20];
        while received < offered * 60_000 {
            received += ports.host.read(&mut bytes).unwrap();
            ports.device.ready(&mut ports.driver.active, SOCKET, EventFlags::OUT);
        }
        assert_eq!(ports.driver.used(CHANNEL_OUT).len(), 1);
    }

    #[test]
    fn host_that_hangs_up_closes_the_port() {
        let mut ports = ports();
        ports.open();
        let (gone, _) = UnixStream::pair().unwrap();
        drop(std::mem::replace(&mut ports.host, gone));
        ports.driver.offer(CHANNEL_IN, &[(BUFFERS + 0x200, 4096, true)]);
        ports.device.ready(&mut ports.driver.active, SOCKET, EventFlags::HUP | EventFlags::IN);
        assert_eq!(ports.answer(), [1, 0, 0, 0, 6, 0, 0, 0]);
        assert!(ports.driver.used(CHANNEL_IN).is_empty());
    }
}
