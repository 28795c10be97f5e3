//! The first process of the machines that `cargo xtask bench vm` starts, in `cata-guest`'s stead.
//!
//! It says single letters through the kernel's log, which goes to the first serial port: every hypervisor has
//! one, and the kernel needs no interrupt for it. Who measures notes when each arrives. The words it is given are the
//! kernel's, which makes variables of `BENCH_…=`. Its initial file system holds `/dev/kmsg` and `/modules`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cata_network::netlink::message::Batch;
use cata_network::netlink::{Channel, route};
use cata_sys::mount::{self, Filesystem};
use cata_sys::netlink::ROUTE;
use rustix::fs::{Mode, OFlags, open};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
/// How much of a disk is read and written in one piece, and how much of a stream.
const PIECE: usize = MIB;
const MORSEL: usize = 64 << 10;
const DISK: &str = "/dev/vda";
const CARD: &str = "/sys/class/net/eth0";

/// The line is ended: one that could still go on is shown only when the next one begins.
fn say(text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(format!("<0>~{text}\n").as_bytes())
}

fn number(name: &str) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn main() {
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        return;
    }
    if let Err(error) = live() {
        let _ = say(&format!("! {error}"));
    }
    // A kernel without its first process would panic: the machine is ended from outside.
    loop {
        thread::park();
    }
}

fn live() -> io::Result<()> {
    say("K")?;
    for (fstype, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount_at(fstype, target)?;
    }
    let failures = load_drivers()?;
    for device in [DISK, CARD] {
        appear(device, &failures)?;
    }
    say("D")?;
    let mut host = connect()?;
    wait(&mut host)?;
    block()?;
    net(&mut host)?;
    memory(&mut host)
}

/// Until the host says to go on: it looks at the machine meanwhile.
fn wait(host: &mut TcpStream) -> io::Result<()> {
    host.read_exact(&mut [0])
}

fn mount_at(fstype: &str, target: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let filesystem = Filesystem::open(fstype)?;
    filesystem.set("source", fstype.as_bytes())?;
    let tree = filesystem.mount(0)?;
    let at = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(mount::attach(tree.as_fd(), at.as_fd())?)
}

/// How often, a millisecond apart, is looked whether a device has appeared.
const LOOKS: u32 = 30_000;

/// Waits for a device. A driver that failed is a reason only then: that of a bus which the machine has not is no harm.
fn appear(device: &str, failures: &[String]) -> io::Result<()> {
    for _ in 0..LOOKS {
        if Path::new(device).exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other(format!("{device} did not appear; drivers that failed: {failures:?}")))
}

/// As `cata-guest` does it; those that failed, and why.
fn load_drivers() -> io::Result<Vec<String>> {
    let mut failures = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir("/modules")?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        if let Err(error) = rustix::system::finit_module(File::open(&file)?, c"", 0) {
            failures.push(format!("{}: {error}", file.display()));
        }
        fs::remove_file(&file)?;
    }
    Ok(failures)
}

/// A buffer that starts at a page, as direct transfers want it.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new(length: usize) -> Self {
        let whole = vec![0x5a; length + PAGE];
        let skip = whole.as_ptr().align_offset(PAGE);
        Self(whole, skip)
    }

    fn part(&mut self, length: usize) -> &mut [u8] {
        &mut self.0[self.1..self.1 + length]
    }
}

/// The disk past the guest's page cache: in one stream, then here and there.
fn block() -> io::Result<()> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    let disk = OpenOptions::new().read(true).write(true).custom_flags(flags).open(DISK)?;
    let (mib, count) = (number("BENCH_DISK"), number("BENCH_COUNT"));
    let mut buffer = Aligned::new(PIECE);
    let mut places = Places { state: 1, pages: mib * MIB / PAGE };
    say("a")?;
    for piece in 0..mib {
        disk.write_all_at(buffer.part(PIECE), (piece * PIECE) as u64)?;
    }
    say("b")?;
    for piece in 0..mib {
        disk.read_exact_at(buffer.part(PIECE), (piece * PIECE) as u64)?;
    }
    say("c")?;
    for _ in 0..count {
        disk.read_exact_at(buffer.part(PAGE), places.next())?;
    }
    say("d")?;
    for _ in 0..count {
        disk.write_all_at(buffer.part(PAGE), places.next())?;
    }
    say("e")
}

/// Pages in an order that is the same each time and looks like none.
struct Places {
    state: u32,
    pages: usize,
}

impl Places {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let page = (self.state >> 8) as usize % self.pages.max(1);
        (page * PAGE) as u64
    }
}

/// The network card gets its address; the host listens.
fn connect() -> io::Result<TcpStream> {
    let index: u32 = fs::read_to_string(Path::new(CARD).join("ifindex"))?.trim().parse().unwrap_or(0);
    let mut batch = Batch::new();
    let address = "10.99.0.2/24".parse().map_err(io::Error::other)?;
    route::add_address(&mut batch, index, address);
    route::set_up(&mut batch, index);
    Channel::open(ROUTE).and_then(|channel| channel.apply(&batch)).map_err(io::Error::other)?;
    let host = SocketAddr::from(([10, 99, 0, 1], 7000));
    let stream = TcpStream::connect_timeout(&host, Duration::from_secs(120))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// To the host, from the host, and back and forth.
fn net(stream: &mut TcpStream) -> io::Result<()> {
    let (mib, count) = (number("BENCH_NET"), number("BENCH_COUNT"));
    let mut buffer = vec![0x5a; MORSEL];
    let mut byte = [0];
    say("f")?;
    for _ in 0..mib * MIB / MORSEL {
        stream.write_all(&buffer)?;
    }
    // The host has all of it.
    stream.read_exact(&mut byte)?;
    say("g")?;
    for _ in 0..mib * MIB / MORSEL {
        stream.read_exact(&mut buffer)?;
    }
    say("h")?;
    for _ in 0..count {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    say("i")
}

/// Takes memory, holds it until the host has looked, and lets go.
fn memory(host: &mut TcpStream) -> io::Result<()> {
    let mut taken = vec![0_u8; number("BENCH_MEMORY") * MIB];
    for page in taken.chunks_mut(PAGE) {
        page[0] = 1;
    }
    // Seen by somebody: a compiler puts off nothing of it.
    let taken = std::hint::black_box(taken);
    say("T")?;
    wait(host)?;
    drop(taken);
    say("F")
}
