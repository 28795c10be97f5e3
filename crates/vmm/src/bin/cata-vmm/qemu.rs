//! The machine on QEMU, where the kernel's virtual machines cannot be used: the same guest, the same devices,
//! by software. QEMU runs as nobody's user with its own system call filter, and opens nothing but its ROMs.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use cata_guest::order::{Order, Processor};
use cata_guest::protocol::{DECK, Interface, PORT};

use crate::Refusal;
use crate::child::{self, Child, number};

/// What differs between kinds of processors.
struct Kind {
    program: &'static str,
    package: &'static str,
    /// Beside what the order says: the log on the serial port, and what software emulation needs.
    cmdline: &'static str,
    machine: &'static str,
}

const AMD64: Kind = Kind {
    program: "/usr/bin/qemu-system-x86_64",
    package: "qemu-system-x86",
    cmdline: "console=ttyS0 reboot=t tsc=reliable no_timer_check 8250.nr_uarts=1",
    machine: "-cpu max,-la57 -M q35,usb=off,smbus=off,sata=off,vmport=off,memory-backend=memory",
};

const ARM64: Kind = Kind {
    program: "/usr/bin/qemu-system-aarch64",
    package: "qemu-system-arm",
    cmdline: "console=ttyAMA0",
    // A model without pointer authentication, whose emulation takes most of a boot.
    machine: "-cpu neoverse-n1 -M virt,gic-version=3,memory-backend=memory",
};

/// The same for all of them.
const CMDLINE: &str = "quiet loglevel=4 panic=-1 nokaslr mitigations=off cryptomgr.notests audit=0 \
    random.trust_cpu=on cgroup_no_v1=all";

/// The ends that the machine gets.
pub(crate) struct Ends<'a> {
    pub(crate) kernel: &'a OwnedFd,
    pub(crate) archives: &'a [OwnedFd],
    pub(crate) channel: &'a OwnedFd,
    /// See [`crate::qmp`].
    pub(crate) control: &'a OwnedFd,
    pub(crate) log: &'a OwnedFd,
    pub(crate) deck: &'a OwnedFd,
    pub(crate) taps: &'a [OwnedFd],
    pub(crate) disks: &'a [OwnedFd],
    /// Its complaints.
    pub(crate) stderr: &'a OwnedFd,
}

/// Starts it.
pub(crate) fn start(order: &Order, interfaces: &[Interface], ends: &Ends<'_>) -> Result<Child, Refusal> {
    let kind = match order.processor {
        Processor::Amd64 => AMD64,
        Processor::Arm64 => ARM64,
    };
    let program = Path::new(kind.program);
    if !program.exists() {
        let native = kind.program.ends_with(std::env::consts::ARCH);
        let other = if native { ", or use a host with /dev/kvm" } else { "" };
        return Err(Refusal::with_hint(
            format_args!("{} is not installed, and KVM is not used", kind.program),
            format!("install Debian's package {}{other}", kind.package),
        ));
    }
    let initramfs = join(ends.archives).map_err(Refusal::at("put the initial file system together"))?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![
        ends.kernel.as_fd(),
        initramfs.as_fd(),
        ends.channel.as_fd(),
        ends.log.as_fd(),
        ends.deck.as_fd(),
        ends.control.as_fd(),
    ];
    descriptors.extend(ends.taps.iter().map(|tap| tap.as_fd()));
    let mut arguments = machine(order, &kind, number(ends.kernel), number(&initramfs));
    arguments.extend(devices(ends));
    for (at, (tap, interface)) in ends.taps.iter().zip(interfaces).enumerate() {
        arguments.extend(card(at, number(tap), interface));
    }
    descriptors.extend(ends.disks.iter().map(|disk| disk.as_fd()));
    for (at, (fd, disk)) in ends.disks.iter().zip(&order.disks).enumerate() {
        arguments.extend(drive(at, number(fd), &disk.serial));
    }
    child::start(&child::Order {
        program,
        arguments: &arguments,
        descriptors: &descriptors,
        stderr: ends.stderr.as_fd(),
        uid: Some(order.uid),
    })
    .map_err(Refusal::at(format_args!("start {}", kind.program)))
}

/// One file of several archives: the kernel unpacks one behind the other, QEMU takes only one.
fn join(archives: &[OwnedFd]) -> std::io::Result<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut whole = File::from(rustix::fs::memfd_create("initramfs", flags)?);
    for archive in archives {
        let mut archive = File::from(archive.try_clone()?);
        archive.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes)?;
        // Each begins at a multiple of four.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        whole.write_all(&bytes)?;
    }
    Ok(whole.into())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn machine(order: &Order, kind: &Kind, kernel: i32, initramfs: i32) -> Vec<String> {
    let bytes = order.memory;
    let mut arguments = words(
        "-nodefaults -no-user-config -display none -monitor none -no-reboot -nic none -accel tcg,thread=multi,tb-size=128 \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    arguments.extend(words(kind.machine));
    let name = |fd: i32| format!("/proc/self/fd/{fd}");
    let more = [
        ("-m", format!("{}M", bytes >> 20)),
        ("-object", format!("memory-backend-memfd,id=memory,size={bytes},share=on")),
        ("-smp", order.cpus.to_string()),
        ("-kernel", name(kernel)),
        ("-initrd", name(initramfs)),
        ("-append", format!("{} {CMDLINE}{} {}", kind.cmdline, clock(order.processor), order.cmdline)),
    ];
    arguments.extend(more.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    arguments
}

/// How fast the guest's time stamp counter counts, which is the host's own in emulation as well. The guest's kernel
/// would measure it against an emulated timer; where the emulation is held up meanwhile, it is wrong by a factor
/// of forty in either direction, and so is all time of the guest from then on.
fn clock(processor: Processor) -> String {
    match processor {
        Processor::Amd64 => cata_sys::counter::frequency_khz(),
        Processor::Arm64 => None,
    }
    .map_or_else(String::new, |khz| format!(" tsc_early_khz={khz}"))
}

fn devices(ends: &Ends<'_>) -> Vec<String> {
    let (log, channel, deck) = (number(ends.log), number(ends.channel), number(ends.deck));
    let control = number(ends.control);
    let pairs = [
        ("-chardev", format!("socket,id=log,fd={log}")),
        ("-serial", "chardev:log".to_owned()),
        ("-device", "virtio-serial-pci,id=ports".to_owned()),
        ("-chardev", format!("socket,id=channel,fd={channel}")),
        ("-device", format!("virtserialport,bus=ports.0,nr=1,chardev=channel,name={PORT}")),
        ("-chardev", format!("socket,id=control,fd={control}")),
        ("-mon", "chardev=control,mode=control".to_owned()),
        ("-chardev", format!("socket,id=deck,fd={deck}")),
        ("-device", format!("vhost-user-fs-pci,chardev=deck,tag={DECK},queue-size=1024")),
        ("-device", "virtio-rng-pci".to_owned()),
        ("-device", "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on".to_owned()),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// By descriptor: its user may not open the file, and need not.
fn drive(at: usize, fd: i32, serial: &str) -> Vec<String> {
    let pairs = [
        ("-add-fd", format!("set={at},fd={fd}")),
        (
            "-blockdev",
            format!("driver=file,node-name=file{at},filename=/dev/fdset/{at},discard=unmap,locking=off"),
        ),
        ("-blockdev", format!("driver=raw,node-name=disk{at},file=file{at},discard=unmap")),
        ("-device", format!("virtio-blk-pci,drive=disk{at},serial={serial}")),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn card(at: usize, tap: i32, interface: &Interface) -> Vec<String> {
    let [a, b, c, d, e, f] = interface.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let pairs = [
        ("-netdev", format!("tap,id=net{at},fd={tap}")),
        ("-device", format!("virtio-net-pci,netdev=net{at},mac={mac},romfile=")),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}
