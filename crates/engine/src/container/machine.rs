//! A container in a virtual machine, at the moment of its start: which monitor, which kernel, which shares.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_guest::order::{Disk, Links, Monitor, Order, Processor};
use cata_guest::protocol::{Ask, DECK_ROOT, Decoder, FIRST, Frame, Interface, Kind as FrameKind, Told};
use cata_kernel::image::Arch;
use cata_runtime::cgroup::Layout;
use cata_runtime::plan::{Host as Cgroups, Options, Plan, Root};
use cata_runtime::seccomp;
use cata_runtime::user::UserSpec;
use cata_sandbox::client::Client;
use cata_sandbox::launch::Isolation;
use cata_sys::mount::Depth;
use serde::{Deserialize, Serialize};

use crate::container::filter;
use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result, client_error};
use crate::host::Facts;
use crate::kernel;
use crate::ledger::{self, Durability};
use crate::plan::{devices, platform, resources, vm};
use crate::record::{MountKind, Record};
use crate::request::{CreateRequest, MachineDisk, MonitorRequest, NamespaceMode};

/// Written by the engine into `<state>/<id>/` at a start.
const MACHINE_FILE: &str = "machine.json";
/// What running a machine takes on the host besides its memory.
const OVERHEAD_KVM: u64 = 160 << 20;
const OVERHEAD_QEMU: u64 = 448 << 20;

/// How long a guest may take to answer: it may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine of a running container, for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// `kvm` or `qemu`.
    pub monitor: String,
    /// Why that one.
    pub reason: String,
    /// The kernel's name.
    pub kernel: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Bytes: what the guest shall have now.
    pub memory: u64,
    /// Bytes it was booted with: it can have no more before its next start.
    #[serde(default)]
    pub booted: u64,
}

/// What runs machines here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// This.
    pub monitor: Monitor,
    /// For these reasons.
    pub reason: String,
}

/// Opened files of a machine.
pub(crate) struct Parts {
    pub(crate) kernel: OwnedFd,
    pub(crate) archives: Vec<OwnedFd>,
}

impl Engine {
    /// What would run a machine with such processors here.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when what is asked for does not work.
    pub fn choose_monitor(&self, wanted: MonitorRequest, arch: Arch) -> Result<Choice> {
        let qemu = |reason: String| Choice { monitor: Monitor::Qemu, reason };
        if arch != Arch::NATIVE {
            let why = format!("linux/{arch} is another kind of processor than this host's");
            return match wanted {
                MonitorRequest::Kvm => Err(Error::Unsupported {
                    what: format!("--vmm kvm: {why}, and KVM emulates none"),
                    hint: "use --vmm qemu, or leave --vmm out".to_owned(),
                }),
                _ => Ok(qemu(why)),
            };
        }
        if wanted == MonitorRequest::Qemu {
            return Ok(qemu("asked for".to_owned()));
        }
        match (self.probe_kvm()?, wanted) {
            (Ok(()), MonitorRequest::Kvm) => {
                Ok(Choice { monitor: Monitor::Kvm, reason: "asked for".to_owned() })
            }
            (Ok(()), _) => Ok(Choice { monitor: Monitor::Kvm, reason: "KVM runs a guest here".to_owned() }),
            (Err(why), MonitorRequest::Kvm) => Err(Error::Unsupported {
                what: format!("--vmm kvm: {why}"),
                hint: "use --vmm qemu (slower), or a host with a working /dev/kvm".to_owned(),
            }),
            (Err(why), _) => Ok(qemu(format!("KVM is not usable: {why}"))),
        }
    }

    /// Whether a machine really runs on KVM: some only seem to.
    fn probe_kvm(&self) -> Result<std::result::Result<(), String>> {
        let program = self.companion("cata-vmm")?;
        let output = std::process::Command::new(&program).arg("probe").output();
        let output = output.map_err(Error::file("run", &program))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(said) })
    }

    /// The kernel of a container's machine, opened.
    pub(crate) fn machine_parts(&self, record: &Record, arch: Arch) -> Result<(kernel::Record, Parts)> {
        let request = &record.request;
        let mut open = match vm::is_whole(request) {
            true => self.kernel_open(Some(&self.kernel_of_image(&record.image)?), arch)?,
            false => self.kernel_open(request.kernel.as_deref(), arch)?,
        };
        if request.machine.is_some() {
            // Behind the drivers that every guest has.
            open.initramfs.insert(1, self.kernel_open_further(&open.record)?);
        }
        let archives = open.initramfs.into_iter().map(OwnedFd::from).collect();
        Ok((open.record, Parts { kernel: open.kernel.into(), archives }))
    }

    /// The guest's plan, with the host's cgroup, and the machine.
    pub(crate) fn plan_machine(&self, record: &Record, state_dir: &Path) -> Result<(Plan, Order)> {
        let request = &record.request;
        self.check_shared(record)?;
        let arch = platform::machine(&record.image.platform)?;
        let choice = self.choose_monitor(request.monitor, arch)?;
        let memory = vm::memory(&request.resources, Facts::read().memory);
        let cpus = vm::cpus(&request.resources, vm::cpus_unasked(choice.monitor, &self.host));
        let (kernel, _) = self.machine_parts(record, arch)?;
        check_bus(&kernel, choice.monitor)?;
        let facts = MachineFacts {
            monitor: choice.monitor.as_str().to_owned(),
            reason: choice.reason,
            kernel: kernel.name,
            cpus,
            memory,
            booted: memory,
        };
        ledger::write(&state_dir.join(MACHINE_FILE), &facts, Durability::Volatile)?;

        let mut plan = self.plan_guest(record)?;
        let shares = vm::move_inside(&mut plan);
        let inside = plan.cgroup.take().unwrap_or_default();
        let overhead = if choice.monitor == Monitor::Kvm { OVERHEAD_KVM } else { OVERHEAD_QEMU };
        plan.cgroup = Some(host_cgroup(record, memory, overhead)?);
        let dir = self.dir(&record.id);
        let order = Order {
            program: self.companion("cata-vmm")?,
            monitor: choice.monitor,
            processor: match arch {
                Arch::Amd64 => Processor::Amd64,
                Arch::Arm64 => Processor::Arm64,
            },
            cpus,
            memory,
            cmdline: String::new(),
            stage: state_dir.join("deck"),
            root: Root::Overlay {
                lower: record.image.layers.clone(),
                upper: Some(dir.upper()),
                work: Some(dir.work()),
                options: Vec::new(),
                as_on_disk: true,
            },
            shares,
            disks: request
                .machine
                .iter()
                .map(|_| Disk { source: dir.disk(), serial: MachineDisk::SERIAL.to_owned() })
                .collect(),
            cgroup: inside,
            all_devices: request.privileged,
            uid: vm::uid(record),
        };
        Ok((plan, order))
    }

    /// The container's plan as if the guest were the host.
    fn plan_guest(&self, record: &Record) -> Result<Plan> {
        let inside = Record {
            request: CreateRequest {
                resources: vm::inside(&record.request.resources),
                cgroup_parent: None,
                // The engine in a machine makes cgroups beside its own.
                // So does the init of a whole image.
                cgroupns: match record.request.machine.is_some() || vm::is_whole(&record.request) {
                    true => NamespaceMode::Host,
                    false => record.request.cgroupns.clone(),
                },
                ..record.request.clone()
            },
            ..record.clone()
        };
        let spec = self.spec(&inside)?;
        let mut options = Options {
            root: Some(vm::root()),
            user: Some(UserSpec::Named {
                user: record.config.user.clone(),
                groups: record.request.groups.clone(),
            }),
            init: record.request.init,
            ..Options::default()
        };
        if let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
            let compiled =
                seccomp::compile_for(profile, filter::arch(record)?).map_err(filter::seccomp_error)?;
            options.filter = Some(compiled.program);
        }
        let host = Cgroups { cgroups: Some(vm::layout()) };
        let mut plan = cata_runtime::plan::plan(&spec, &host, &options)
            .map_err(|e| Error::Runtime(Foreign::new(Kind::InvalidArgument, None, &e)))?;
        self.keep_in_volumes(record, &mut plan);
        if vm::is_whole(&record.request) {
            vm::open_up(&mut plan);
        }
        Ok(plan)
    }

    /// Two kernels that write to one tree without knowing of each other destroy it: locks do not reach from
    /// one machine into another.
    fn check_shared(&self, record: &Record) -> Result<()> {
        let writes = |record: &Record| -> Vec<PathBuf> {
            let written = record.mounts.iter().filter(|m| !m.read_only && m.kind != MountKind::Tmpfs);
            written.map(|mount| mount.source.clone()).filter(|source| source.is_dir()).collect()
        };
        let volumes = |record: &Record| -> Vec<PathBuf> {
            let volumes = record.mounts.iter().filter(|m| matches!(m.kind, MountKind::Volume { .. }));
            volumes.map(|mount| mount.source.clone()).collect()
        };
        let own: Vec<PathBuf> = writes(record).into_iter().filter(|s| volumes(record).contains(s)).collect();
        if own.is_empty() {
            return Ok(());
        }
        for other in self.records()? {
            if other.id == record.id || other.request.isolation != Isolation::Vm {
                continue;
            }
            let Some(both) = writes(&other).into_iter().find(|source| own.contains(source)) else { continue };
            if self.status(&other.id)?.1 == Owner::Alive {
                let volume = record.mounts.iter().find_map(|mount| match &mount.kind {
                    MountKind::Volume { name, .. } if mount.source == both => Some(name.to_string()),
                    _ => None,
                });
                return Err(Error::State {
                    what: format!(
                        "volume {} is used by the virtual machine of container {}: locks do not reach from \
                         one machine into another",
                        volume.unwrap_or_else(|| both.display().to_string()),
                        other.name
                    ),
                    hint: Some(format!("stop {} first, or mount the volume read-only (:ro)", other.name)),
                });
            }
        }
        Ok(())
    }

    /// The machine that a container has, or had last.
    pub(crate) fn machine_facts(&self, record: &Record) -> Option<MachineFacts> {
        if record.request.isolation != Isolation::Vm {
            return None;
        }
        ledger::read(&self.paths.live(&record.id).join(MACHINE_FILE)).ok().flatten()
    }

    /// Other limits for a running machine: memory by its balloon, processors by the host's cgroup.
    pub(crate) fn resize_machine(&self, old: &Record, new: &Record, client: &mut Client) -> Result<()> {
        let facts = self.machine_facts(old).ok_or_else(|| Error::State {
            what: format!("container {} has no virtual machine at the moment", old.name),
            hint: None,
        })?;
        vm::resize(old, new, facts.cpus, facts.booted)?;
        let failed = |error| client_error("update", &error);
        let overhead = if facts.monitor == Monitor::Kvm.as_str() { OVERHEAD_KVM } else { OVERHEAD_QEMU };
        // The guest may take its memory back before it kills a process: around it there is room for that.
        client.set_limits(host_cgroup(new, facts.booted, overhead)?).map_err(failed)?;
        let memory = vm::memory(&new.request.resources, Facts::read().memory).min(facts.booted);
        if memory != facts.memory {
            client.set_memory(memory).map_err(failed)?;
            let file = self.paths.live(&old.id).join(MACHINE_FILE);
            ledger::write(&file, &MachineFacts { memory, ..facts }, Durability::Volatile)?;
        }
        Ok(())
    }

    /// The root of a running machine, from the mount namespace that its file server has: an overlay must not be
    /// mounted twice. For a thread that has a mount namespace of its own.
    pub(crate) fn machine_root(&self, record: &Record) -> Result<Option<OwnedFd>> {
        let (_, owner) = self.status(&record.id)?;
        if record.request.isolation != Isolation::Vm || owner != Owner::Alive {
            return Ok(None);
        }
        let tree = self.paths.live(&record.id).join("deck/tree").join(DECK_ROOT);
        for pid in crate::container::top::pids(record)? {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim_end() != "virtiofsd" {
                continue;
            }
            let namespace = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
            if let Ok(tree) = cata_sys::mount::clone_from(&namespace, &tree, Depth::Recursive) {
                return Ok(Some(tree));
            }
        }
        let what = format!("the machine of container {} shows no files at the moment", record.name);
        Err(Error::State { what, hint: Some("try again, or stop it first".to_owned()) })
    }

    /// Asks a running container's guest.
    pub(crate) fn ask_guest(&self, record: &Record, ask: Ask) -> Result<Told> {
        let (_, mut client) = self.client(record.id.as_str())?;
        let stream = client.connect_to_guest().map_err(|error| client_error("ask the guest", &error))?;
        let mut stream = UnixStream::from(stream);
        let wrong = |why: &dyn std::error::Error| Error::Sandbox(Foreign::new(Kind::Internal, None, why));
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| wrong(&error))?;
        let mut bytes = Vec::new();
        Frame::document(FrameKind::Ask, FIRST, &ask).map_err(|error| wrong(&error))?.write(&mut bytes);
        stream.write_all(&bytes).map_err(|error| wrong(&error))?;
        let mut decoder = Decoder::default();
        let mut piece = [0_u8; 16 * 1024];
        loop {
            if let Some(frame) = decoder.take().map_err(|error| wrong(&error))? {
                return frame.parse().map_err(|error| wrong(&error));
            }
            match stream.read(&mut piece) {
                Ok(0) => {
                    let what = format!("container {} is not running", record.name);
                    return Err(Error::State { what, hint: None });
                }
                Ok(length) => decoder.feed(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Error::Timeout("the container's guest".to_owned())),
            }
        }
    }
}

/// A machine finds its devices on one bus only.
fn check_bus(kernel: &kernel::Record, monitor: Monitor) -> Result<()> {
    let driver = match monitor {
        Monitor::Kvm => "virtio_mmio",
        Monitor::Qemu => "virtio_pci",
    };
    if !kernel.drivers.iter().any(|fact| fact.name == driver && fact.offer == kernel::MISSING) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!(
            "the kernel {} has no driver {driver}, neither built in nor as a module: it would find nothing of a \
             machine on {}",
            kernel.name,
            monitor.as_str()
        ),
        hint: "choose another with --kernel: `cata kernel install` takes the distribution's".to_owned(),
    })
}

/// The cgroup that the machine as a whole is in.
fn host_cgroup(record: &Record, memory: u64, overhead: u64) -> Result<cata_runtime::cgroup::CgroupPlan> {
    let wrap = |e: cata_runtime::cgroup::CgroupError| {
        Error::Runtime(Foreign::new(Kind::Internal, e.hint().map(str::to_owned), &e))
    };
    let wanted = vm::outside(&record.request.resources, memory, overhead);
    // Devices of the host are of no use to who is nobody's user in a guest: the machine itself needs some.
    let oci = resources::oci(&wanted, devices::rules(true, &[], &[])?, &[])?;
    let layout = Layout::detect().map_err(wrap)?;
    cata_runtime::cgroup::plan(Some(&oci), &record.cgroup_path().to_string_lossy(), &layout).map_err(wrap)
}

/// What the machine is told of its network.
pub(crate) fn links(
    taps: &[(OwnedFd, cata_network::request::Interface)],
    names: bool,
    archives: usize,
) -> Links {
    let interface = |interface: &cata_network::request::Interface| Interface {
        name: interface.name.clone(),
        mac: interface.mac,
        mtu: interface.mtu,
        addresses: interface.addresses.clone(),
        gateways: interface.gateways.clone(),
    };
    let interfaces: Vec<Interface> = taps.iter().map(|(_, i)| interface(i)).collect();
    let ipv6 = interfaces.iter().any(|i| i.addresses.iter().any(|address| address.addr().is_ipv6()));
    Links { archives, interfaces, names, ipv6 }
}
