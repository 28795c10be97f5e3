//! Who runs the machine: each hypervisor with the same kernel, memory, disk, card and balloon, as its own
//! documentation says to write it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cata,
    Q35,
    Microvm,
    Firecracker,
    CloudHypervisor,
}

/// A hypervisor that is there.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    pub(super) kind: Kind,
    program: PathBuf,
    /// Firecracker's version, for what only newer ones understand.
    version: (u32, u32),
}

/// What all machines have.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) disk: PathBuf,
    pub(super) tap: &'static str,
    pub(super) memory_mib: u64,
    /// What the guest is told, as parameters of its kernel.
    pub(super) words: String,
    /// A directory for what a hypervisor wants as a file.
    pub(super) scratch: PathBuf,
}

/// The guest's hardware address.
const MAC: &str = "02:00:00:00:00:01";
/// As our machines have it, and the log on a serial port.
const CMDLINE: &str = "quiet loglevel=4 panic=-1 cryptomgr.notests audit=0 random.trust_cpu=on \
    cgroup_no_v1=all 8250.nr_uarts=1 printk.time=0 console=ttyS0";
/// What spares QEMU's guests waiting for hardware of old.
const QEMU_CMDLINE: &str = "reboot=t tsc=reliable no_timer_check";

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Cata, Self::Q35, Self::Microvm, Self::Firecracker, Self::CloudHypervisor];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cata => super::figures::OURS,
            Self::Q35 => "qemu q35",
            Self::Microvm => "qemu microvm",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The variable that names its program.
    pub(super) fn variable(self) -> Option<&'static str> {
        match self {
            Self::Cata => Some("CATA_BENCH_BOOT"),
            Self::Q35 | Self::Microvm => None,
            Self::Firecracker => Some("CATA_BENCH_FIRECRACKER"),
            Self::CloudHypervisor => Some("CATA_BENCH_CLOUD_HYPERVISOR"),
        }
    }
}

impl Monitor {
    /// Finds its program.
    pub(super) fn find(kind: Kind) -> Result<Self> {
        let program = match kind.variable() {
            None => PathBuf::from("/usr/bin/qemu-system-x86_64"),
            Some(name) => {
                let path = std::env::var_os(name).with_context(|| format!("${name} does not name it"))?;
                PathBuf::from(path)
            }
        };
        ensure!(program.exists(), "{} does not exist", program.display());
        let version = if kind == Kind::Firecracker { version(&program)? } else { (0, 0) };
        Ok(Self { kind, program, version })
    }

    /// The command that starts the machine, its serial port on standard output.
    pub(super) fn command(&self, parts: &Parts) -> Result<Command> {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Cata => cata(&mut command, parts),
            Kind::Q35 | Kind::Microvm => qemu(&mut command, parts, self.kind == Kind::Microvm),
            Kind::Firecracker => {
                let file = parts.scratch.join("firecracker.json");
                std::fs::write(&file, self.document(parts).to_string())
                    .with_context(|| format!("write {}", file.display()))?;
                command.args(["--no-api", "--config-file"]).arg(file);
            }
            Kind::CloudHypervisor => cloud_hypervisor(&mut command, parts),
        }
        Ok(command)
    }

    /// Firecracker's description of a machine.
    fn document(&self, parts: &Parts) -> Value {
        let mut balloon = json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 0 });
        // Versions that do not know it refuse it.
        if self.version >= (1, 14) {
            balloon["free_page_reporting"] = true.into();
        }
        json!({
            "boot-source": {
                "kernel_image_path": parts.kernel,
                "initrd_path": parts.initramfs,
                "boot_args": format!("reboot=k pci=off {CMDLINE} {}", parts.words),
            },
            "machine-config": { "vcpu_count": 1, "mem_size_mib": parts.memory_mib },
            "drives": [{
                "drive_id": "disk",
                "path_on_host": parts.disk,
                "is_root_device": false,
                "is_read_only": false,
                "cache_type": "Writeback",
                "io_engine": "Sync",
            }],
            "network-interfaces": [
                { "iface_id": "eth0", "guest_mac": MAC, "host_dev_name": parts.tap },
            ],
            "balloon": balloon,
            "entropy": {},
        })
    }
}

/// `Firecracker v1.13.1`
fn version(program: &Path) -> Result<(u32, u32)> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("run {} --version", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split_once('v').map_or("", |(_, rest)| rest);
    let mut numbers = numbers.split('.').map(|part| part.trim().parse().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
}

fn cata(command: &mut Command, parts: &Parts) {
    command.arg("--kernel").arg(&parts.kernel).arg("--initramfs").arg(&parts.initramfs);
    command.args(["--memory", &parts.memory_mib.to_string(), "--serial", "--rng", "--balloon"]);
    command.arg("--disk").arg(&parts.disk).args(["--tap", parts.tap]);
    command.arg("--cmdline").arg(format!("{CMDLINE} {}", parts.words));
}

fn qemu(command: &mut Command, parts: &Parts, microvm: bool) {
    let (machine, bus) = if microvm {
        ("microvm,acpi=on,pic=off,pit=off,rtc=off,isa-serial=on", "device")
    } else {
        ("q35,usb=off,smbus=off,sata=off,vmport=off", "pci")
    };
    command.args(["-M", machine, "-accel", "kvm", "-cpu", "host", "-smp", "1"]);
    command.args(["-m", &format!("{}M", parts.memory_mib), "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"]);
    command.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(&parts.initramfs);
    command.arg("-append").arg(format!("{QEMU_CMDLINE} {CMDLINE} {}", parts.words));
    let file = parts.disk.to_string_lossy().replace(',', ",,");
    command.arg("-drive").arg(format!("if=none,id=disk,format=raw,cache=writeback,file={file}"));
    command.args(["-device", &format!("virtio-blk-{bus},drive=disk")]);
    command.args(["-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no", parts.tap)]);
    let rom = if microvm { "" } else { ",romfile=" };
    command.args(["-device", &format!("virtio-net-{bus},netdev=net,mac={MAC}{rom}")]);
    command.args(["-device", &format!("virtio-balloon-{bus},deflate-on-oom=on,free-page-reporting=on")]);
    command.args(["-device", &format!("virtio-rng-{bus}")]);
}

fn cloud_hypervisor(command: &mut Command, parts: &Parts) {
    command.arg("--kernel").arg(&parts.kernel).arg("--initramfs").arg(&parts.initramfs);
    command.args(["--cmdline", &format!("{CMDLINE} {}", parts.words), "--cpus", "boot=1"]);
    command.args(["--memory", &format!("size={}M", parts.memory_mib)]);
    command.args(["--disk", &format!("path={}", parts.disk.display())]);
    command.args(["--net", &format!("tap={},mac={MAC}", parts.tap)]);
    command.args(["--balloon", "size=0,deflate_on_oom=on,free_page_reporting=on"]);
    command.args(["--rng", "src=/dev/urandom", "--serial", "tty", "--console", "off"]);
}
