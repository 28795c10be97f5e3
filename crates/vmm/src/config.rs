//! What a machine is made of: processors, memory, a kernel, devices. Data only, decided by somebody else.
//!
//! Every resource is an open descriptor, never a path. The type of a descriptor is a parameter: in a
//! document it is a [`Slot`] (the place among the descriptors that travelled beside it), in the process that
//! runs the machine it is an `OwnedFd`; [`MachineConfig::map`] leads from the one to the other.

use std::fmt;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// A descriptor in a document: its place among those that travelled beside the document.
pub type Slot = usize;

/// A machine's whole description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig<F = OwnedFd> {
    /// Processors, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Guest memory: a ceiling, not a reservation. A multiple of 4 KiB, at least [`MIN_MEMORY`].
    pub memory_bytes: u64,
    /// An ELF `vmlinux` with a PVH entry, or a bzImage. Read from its beginning; only its offset is changed.
    pub kernel: F,
    /// Archives, loaded one behind the other as the kernel's initial file system.
    #[serde(default)]
    pub initramfs: Vec<F>,
    /// Kernel parameters of the guest's own. What the virtual hardware needs is added by the machine.
    #[serde(default)]
    pub cmdline: String,
    /// Where the kernel's log goes (`hvc0`), write only. Without it the log is dropped.
    #[serde(default)]
    pub console: Option<F>,
    /// A connected stream socket: the guest's port `cata.channel`.
    #[serde(default)]
    pub channel: Option<F>,
    /// Where the emulated serial port writes, for the debugging of early boots. Each byte of it costs an
    /// exit, so that a machine has one only if asked.
    #[serde(default)]
    pub serial: Option<F>,
    /// Network cards.
    #[serde(default)]
    pub net: Vec<NetConfig<F>>,
    /// Disks, in the order the guest names them: `vda`, `vdb` …
    #[serde(default)]
    pub block: Vec<BlockConfig<F>>,
    /// File systems served by vhost-user servers.
    #[serde(default)]
    pub fs: Vec<FsConfig<F>>,
    /// A socket device.
    #[serde(default)]
    pub vsock: Option<VsockConfig<F>>,
    /// A memory balloon: what the guest frees goes back to the host, and the machine can be shrunk.
    #[serde(default)]
    pub balloon: bool,
    /// A source of entropy.
    #[serde(default)]
    pub rng: bool,
}

/// A network card on a tap device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig<F = OwnedFd> {
    /// A tap opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, not blocking. The machine sets its offloads.
    pub tap: F,
    /// The guest's hardware address, a unicast one.
    pub mac: [u8; 6],
    /// The link's MTU, told to the guest; 68 to 65535.
    pub mtu: u16,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig<F = OwnedFd> {
    /// A regular file or a block device; its size, rounded down to whole sectors of 512 bytes, is the disk's.
    pub file: F,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What the guest reads from `/sys/block/*/serial`: at most 20 bytes of ASCII.
    pub serial: String,
}

/// A file system of a vhost-user server, `virtiofsd` for example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsConfig<F = OwnedFd> {
    /// What the guest mounts: 1 to 36 bytes.
    pub tag: String,
    /// A connected stream socket to the server.
    pub socket: F,
}

/// A socket device: streams between guest and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig<F = OwnedFd> {
    /// The guest's address, above 2.
    pub cid: u32,
    /// A listening stream socket. Who connects to it writes `CONNECT <port>\n` and is answered
    /// `OK <host port>\n` once the guest has accepted; from then on bytes pass.
    pub listener: F,
}

/// The most processors of one machine.
pub const MAX_VCPUS: u8 = 64;
/// The least memory that any stock kernel starts in.
pub const MIN_MEMORY: u64 = 32 << 20;
/// The most devices of one machine.
pub const MAX_DEVICES: usize = 64;
/// The longest command line, the machine's own part included.
pub const MAX_CMDLINE: usize = 2047;
/// What the machine's own part of the command line takes at most.
const OWN_CMDLINE: usize = 160;

/// Why a description is not that of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too few or too many processors.
    #[error("a virtual machine has 1 to {MAX_VCPUS} processors, not {0}")]
    Vcpus(u8),
    /// Memory below the floor, or not in whole pages.
    #[error("a virtual machine needs at least 32 MiB of memory in whole pages, not {0} bytes")]
    Memory(u64),
    /// The command line holds a byte the kernel cannot read.
    #[error("the kernel command line holds byte {0:#04x}")]
    CmdlineByte(u8),
    /// The command line is too long.
    #[error(
        "the kernel command line is {0} bytes long with the machine's own part, at most {MAX_CMDLINE} are possible"
    )]
    CmdlineLength(usize),
    /// Too many devices.
    #[error("{0} devices, at most {MAX_DEVICES} are possible")]
    Devices(usize),
    /// A hardware address that is a group's, or zero.
    #[error("{} is not the hardware address of one card", Mac(*.0))]
    Mac([u8; 6]),
    /// An MTU that IPv4 does not allow.
    #[error("an MTU of {0} is not possible")]
    Mtu(u16),
    /// A disk's serial number is too long or not ASCII.
    #[error("disk serial number {0:?} is not 0 to 20 printable ASCII characters")]
    Serial(String),
    /// A file system's tag is empty, too long or used twice.
    #[error("file system tag {0:?} is not 1 to 36 bytes, or is used twice")]
    Tag(String),
    /// A socket device's address is one of the reserved.
    #[error("vsock address {0} is reserved")]
    Cid(u32),
}

/// A hardware address as people write it.
struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl<F> MachineConfig<F> {
    /// The smallest machine: no devices.
    pub fn new(vcpus: u8, memory_bytes: u64, kernel: F) -> Self {
        MachineConfig {
            vcpus,
            memory_bytes,
            kernel,
            initramfs: Vec::new(),
            cmdline: String::new(),
            console: None,
            channel: None,
            serial: None,
            net: Vec::new(),
            block: Vec::new(),
            fs: Vec::new(),
            vsock: None,
            balloon: false,
            rng: false,
        }
    }

    /// How many virtio devices the machine has; console and channel are one.
    pub fn devices(&self) -> usize {
        let console = self.console.is_some() || self.channel.is_some();
        self.net.len()
            + self.block.len()
            + self.fs.len()
            + usize::from(console)
            + usize::from(self.vsock.is_some())
            + usize::from(self.balloon)
            + usize::from(self.rng)
    }

    /// Whether this can be a machine; looks at no descriptor.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(ConfigError::Vcpus(self.vcpus));
        }
        if self.memory_bytes < MIN_MEMORY
            || !self.memory_bytes.is_multiple_of(4096)
            || self.memory_bytes > 1 << 45
        {
            return Err(ConfigError::Memory(self.memory_bytes));
        }
        if self.devices() > MAX_DEVICES {
            return Err(ConfigError::Devices(self.devices()));
        }
        if let Some(byte) = self.cmdline.bytes().find(|b| !(b' '..=b'~').contains(b)) {
            return Err(ConfigError::CmdlineByte(byte));
        }
        let length = self.cmdline.len() + OWN_CMDLINE;
        if length > MAX_CMDLINE {
            return Err(ConfigError::CmdlineLength(length));
        }
        self.net.iter().try_for_each(NetConfig::validate)?;
        self.block.iter().try_for_each(BlockConfig::validate)?;
        for (index, fs) in self.fs.iter().enumerate() {
            let twice = self.fs[..index].iter().any(|other| other.tag == fs.tag);
            if twice || fs.tag.is_empty() || fs.tag.len() > 36 || fs.tag.contains('\0') {
                return Err(ConfigError::Tag(fs.tag.clone()));
            }
        }
        match &self.vsock {
            Some(vsock) if vsock.cid < 3 || vsock.cid == u32::MAX => Err(ConfigError::Cid(vsock.cid)),
            _ => Ok(()),
        }
    }

    /// The same machine with other descriptors, each turned by `turn`.
    pub fn map<G, E>(self, mut turn: impl FnMut(F) -> Result<G, E>) -> Result<MachineConfig<G>, E> {
        Ok(MachineConfig {
            vcpus: self.vcpus,
            memory_bytes: self.memory_bytes,
            kernel: turn(self.kernel)?,
            initramfs: self.initramfs.into_iter().map(&mut turn).collect::<Result<_, E>>()?,
            cmdline: self.cmdline,
            console: self.console.map(&mut turn).transpose()?,
            channel: self.channel.map(&mut turn).transpose()?,
            serial: self.serial.map(&mut turn).transpose()?,
            net: (self.net.into_iter())
                .map(|net| Ok(NetConfig { tap: turn(net.tap)?, mac: net.mac, mtu: net.mtu }))
                .collect::<Result<_, E>>()?,
            block: (self.block.into_iter())
                .map(|b| Ok(BlockConfig { file: turn(b.file)?, read_only: b.read_only, serial: b.serial }))
                .collect::<Result<_, E>>()?,
            fs: (self.fs.into_iter())
                .map(|fs| Ok(FsConfig { tag: fs.tag, socket: turn(fs.socket)? }))
                .collect::<Result<_, E>>()?,
            vsock: (self.vsock)
                .map(|vsock| Ok(VsockConfig { cid: vsock.cid, listener: turn(vsock.listener)? }))
                .transpose()?,
            balloon: self.balloon,
            rng: self.rng,
        })
    }
}

impl<F> NetConfig<F> {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.mac[0] & 1 != 0 || self.mac == [0; 6] {
            return Err(ConfigError::Mac(self.mac));
        }
        if self.mtu < 68 { Err(ConfigError::Mtu(self.mtu)) } else { Ok(()) }
    }
}

impl<F> BlockConfig<F> {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.serial.len() > 20 || !self.serial.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Serial(self.serial.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineConfig<Slot> {
        MachineConfig {
            net: vec![NetConfig { tap: 1, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }],
            fs: vec![FsConfig { tag: "deck".into(), socket: 2 }],
            channel: Some(3),
            console: Some(4),
            ..MachineConfig::new(2, 256 << 20, 0)
        }
    }

    #[test]
    fn document_read_back_is_the_same() {
        let text = serde_json::to_string(&machine()).unwrap();
        assert_eq!(serde_json::from_str::<MachineConfig<Slot>>(&text).unwrap(), machine());
    }

    #[test]
    fn document_with_unknown_field_is_refused() {
        let text = r#"{"vcpus":1,"memory_bytes":67108864,"kernel":0,"gpu":true}"#;
        assert!(serde_json::from_str::<MachineConfig<Slot>>(text).is_err());
    }

    #[test]
    fn map_visits_every_descriptor_once() {
        let mut seen = Vec::new();
        let machine = machine().map(|slot| {
            seen.push(slot);
            Ok::<_, ()>(slot + 10)
        });
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(machine.unwrap().fs[0].socket, 12);
    }

    #[test]
    fn console_and_channel_are_one_device() {
        assert_eq!(machine().devices(), 3);
    }

    #[test]
    fn impossible_machines_are_refused() {
        type Change = fn(&mut MachineConfig<Slot>);
        let changes: [Change; 10] = [
            |m| m.vcpus = 0,
            |m| m.vcpus = MAX_VCPUS + 1,
            |m| m.memory_bytes = MIN_MEMORY - 4096,
            |m| m.memory_bytes += 1,
            |m| m.cmdline = "a\nb".into(),
            |m| m.cmdline = "x".repeat(MAX_CMDLINE),
            |m| m.net[0].mac[0] = 1,
            |m| m.net[0].mtu = 67,
            |m| m.fs.push(m.fs[0].clone()),
            |m| m.vsock = Some(VsockConfig { cid: 2, listener: 9 }),
        ];
        machine().validate().unwrap();
        for (index, change) in changes.into_iter().enumerate() {
            let mut machine = machine();
            change(&mut machine);
            assert!(machine.validate().is_err(), "change {index} went through");
        }
    }
}
