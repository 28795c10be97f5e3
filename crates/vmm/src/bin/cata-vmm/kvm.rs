//! The machine on KVM: threads of this process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use cata_guest::order::{Links, Order};
use cata_guest::protocol::DECK;
use cata_vmm::config::{BlockConfig, FsConfig, MachineConfig, NetConfig};
use cata_vmm::{End, Machine};

use crate::Refusal;

/// The virtual device.
pub(crate) const DEVICE: &str = "/dev/kvm";
/// What a guest needs to know beside its devices.
const CMDLINE: &str = "quiet loglevel=4 panic=-1 cryptomgr.notests audit=0 random.trust_cpu=on \
    cgroup_no_v1=all";
/// Largest packet where the network says nothing.
const MTU: u16 = 1500;

/// What the machine gets for its own.
pub(crate) struct Ends {
    pub(crate) kernel: OwnedFd,
    pub(crate) archives: Vec<OwnedFd>,
    pub(crate) channel: OwnedFd,
    pub(crate) log: OwnedFd,
    pub(crate) deck: OwnedFd,
    pub(crate) taps: Vec<OwnedFd>,
    pub(crate) disks: Vec<OwnedFd>,
}

/// Makes it; nothing runs yet.
pub(crate) fn make(order: &Order, links: &Links, ends: Ends) -> Result<Machine, Refusal> {
    let kvm = File::options().read(true).write(true).open(Path::new(DEVICE));
    let kvm = kvm.map_err(Refusal::at(format_args!("open {DEVICE}")))?;
    let cpus = u8::try_from(order.cpus).unwrap_or(u8::MAX);
    let net = ends.taps.into_iter().zip(&links.interfaces).map(|(tap, interface)| NetConfig {
        tap,
        mac: interface.mac,
        mtu: interface.mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(MTU),
    });
    let block = ends.disks.into_iter().zip(&order.disks).map(|(file, disk)| BlockConfig {
        file,
        read_only: false,
        serial: disk.serial.clone(),
    });
    let config = MachineConfig {
        block: block.collect(),
        initramfs: ends.archives,
        cmdline: format!("{CMDLINE} {}", order.cmdline).trim_end().to_owned(),
        console: Some(ends.log),
        channel: Some(ends.channel),
        net: net.collect(),
        fs: vec![FsConfig { tag: DECK.to_owned(), socket: ends.deck }],
        balloon: true,
        rng: true,
        ..MachineConfig::new(cpus, order.memory, ends.kernel)
    };
    Machine::new(config, kvm.into()).map_err(|error| {
        use std::error::Error as _;
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Refusal::new(format_args!("cannot make the virtual machine: {error}{source}"))
    })
}

/// Why it ended, in words.
pub(crate) fn describe(end: &End) -> String {
    match end {
        End::PowerOff => "the guest powered itself off".to_owned(),
        End::Reset => "the guest asked for a reboot".to_owned(),
        End::Panic(words) => format!("the guest's kernel panicked: {}", clean(words)),
        End::TripleFault => "a processor of the guest faulted three times in a row".to_owned(),
        End::FileServerLost(_) => "the file server has gone".to_owned(),
        End::Kvm(why) => format!("KVM gave up: {}", clean(why)),
        End::Stopped => "it was stopped".to_owned(),
    }
}

/// A guest's words on a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
