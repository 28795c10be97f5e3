//! PURE: a container in a virtual machine: what of its plan becomes the guest's, what the host's, and what of
//! a request no machine can honour.

use std::path::{Path, PathBuf};

use cata_guest::order::{Monitor, Share};
use cata_guest::protocol::{DECK, DECK_MOUNTS, DECK_ROOT};
use cata_runtime::cgroup::{Controller, Hierarchy, Layout};
use cata_runtime::plan::{MountKind as Planned, NamespaceKind, Plan, Propagation, Root};
use cata_sys::mount::attribute;

use crate::error::Error;
use crate::host::Host;
use crate::kernel;
use crate::record::Record;
use crate::request::{CreateRequest, Isolation, MountSource, NamespaceMode, NetworkMode, Resources};

/// Memory of a machine that was given none.
const MEMORY: u64 = 1 << 30;
/// The least that a kernel, its first process and a small program start in.
pub(crate) const MEMORY_MIN: u64 = 96 << 20;
/// Most processors.
const CPUS_MAX: u32 = 64;
/// The guest's kernel is new enough for everything that plans depend on.
const KERNEL: (u32, u32) = (6, 1);
/// Users that machines become: one each, far from people's.
const FIRST_UID: u32 = 0x6361_0000;

/// Checks what can be refused before anything is touched.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`], with the reason.
pub fn check(request: &CreateRequest) -> Result<(), Error> {
    let cannot = |flag: &str, why: &str| {
        Err(Error::Unsupported {
            what: format!("{flag} is not possible with --isolation vm: {why}"),
            hint: format!("leave out {flag}, or leave out --isolation vm"),
        })
    };
    let shares = "a virtual machine has a kernel of its own, and shares no namespaces";
    let modes = [
        ("--pid", &request.pid),
        ("--ipc", &request.ipc),
        ("--uts", &request.uts),
        ("--cgroupns", &request.cgroupns),
    ];
    for (flag, mode) in modes {
        match mode {
            NamespaceMode::Host => return cannot(&format!("{flag}=host"), shares),
            NamespaceMode::Container(name) => return cannot(&format!("{flag}=container:{name}"), shares),
            _ => {}
        }
    }
    match &request.network {
        NetworkMode::Host => return cannot("--network host", shares),
        NetworkMode::Container(name) => return cannot(&format!("--network container:{name}"), shares),
        NetworkMode::None | NetworkMode::Networks(_) => {}
    }
    if let Some(device) = request.devices.first() {
        let flag = format!("--device {}", device.host.display());
        return cannot(&flag, "the host's devices are not the machine's");
    }
    if let Some(name) = request.device_names.first() {
        return cannot(&format!("--device {name}"), "the host's devices are not the machine's");
    }
    if !request.gpus.is_empty() {
        return cannot("--gpus", "the host's devices are not the machine's");
    }
    if !request.device_rules.is_empty() {
        return cannot("--device-cgroup-rule", "the host's devices are not the machine's");
    }
    if let Some(limit) = request.resources.block.first() {
        let flag = format!("{} {}", limit.kind.flag(), limit.device.display());
        return cannot(&flag, "the host's devices are not the machine's");
    }
    for mount in &request.mounts {
        if let MountSource::Bind { propagation: Some(mode), .. } = &mount.source
            && mode.trim_start_matches('r') != "private"
        {
            let flag = format!("bind-propagation={mode}");
            return cannot(&flag, "mounts do not travel between the host's kernel and the machine's");
        }
    }
    let resources = &request.resources;
    if resources.memory_swap.is_some_and(|swap| swap != 0) {
        return cannot("--memory-swap", "a machine's memory is its --memory, and it has no swap");
    }
    if resources.oom_kill_disable {
        return cannot("--oom-kill-disable", "the machine's own kernel decides");
    }
    if let Some(memory) = resources.memory.filter(|memory| *memory != 0)
        && memory < MEMORY_MIN
    {
        return Err(Error::Invalid(format!(
            "--memory {}m is too little for a virtual machine: its kernel does not start in less than {}m",
            memory >> 20,
            MEMORY_MIN >> 20
        )));
    }
    Ok(())
}

/// Virtual processors where no number is asked for: the host's on KVM. QEMU's emulation of several is slower than
/// that of one on a busy host, and version 7.2 was seen to crash in it: there it is one.
#[must_use]
pub fn cpus_unasked(monitor: Monitor, host: &Host) -> u32 {
    match monitor {
        Monitor::Kvm => host.cpus,
        Monitor::Qemu => 1,
    }
}

/// Virtual processors: as many as are asked for, rounded up, or `otherwise`.
#[must_use]
pub fn cpus(resources: &Resources, otherwise: u32) -> u32 {
    let asked = resources.nano_cpus.filter(|nano| *nano > 0).map(|nano| nano.div_ceil(1_000_000_000));
    let quota = resources.cpu_quota.and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0);
    let quota = quota.map(|quota| quota.div_ceil(resources.cpu_period.unwrap_or(100_000).max(1)));
    let count = asked.or(quota).and_then(|count| u32::try_from(count).ok()).unwrap_or(otherwise);
    count.clamp(1, CPUS_MAX)
}

/// Bytes of memory: as asked for, in whole megabytes.
#[must_use]
pub fn memory(resources: &Resources, host_memory: u64) -> u64 {
    let asked = resources.memory.filter(|memory| *memory > 0);
    let bytes = asked.unwrap_or_else(|| MEMORY.min(host_memory / 2).max(MEMORY_MIN));
    bytes.next_multiple_of(1 << 20)
}

/// Checks what of other limits a machine can have while it runs, which was booted with so many processors and
/// bytes.
///
/// # Errors
/// [`Error::State`], with what it takes instead.
pub fn resize(old: &Record, new: &Record, cpus_booted: u32, booted: u64) -> Result<(), Error> {
    let (before, after) = (&old.request.resources, &new.request.resources);
    let cannot = |what: String| {
        let hint = format!("`cata stop {0}`, `cata update … {0}`, `cata start {0}`", old.name);
        Err(Error::State { what, hint: Some(hint) })
    };
    if after.memory.is_some_and(|memory| memory > booted) {
        return cannot(format!(
            "the virtual machine of container {} was booted with {} MiB of memory, and gets no more while it runs",
            old.name,
            booted >> 20
        ));
    }
    if cpus(after, 1) > cpus_booted {
        return cannot(format!(
            "the virtual machine of container {} was booted with {cpus_booted} processors, and gets no more \
             while it runs",
            old.name
        ));
    }
    if before.pids != after.pids {
        return cannot(format!(
            "the virtual machine of container {} has its --pids-limit from its boot",
            old.name
        ));
    }
    Ok(())
}

/// What the guest's own cgroup limits: counts. Memory and processors are the machine's.
#[must_use]
pub fn inside(resources: &Resources) -> Resources {
    Resources { pids: resources.pids, ..Resources::default() }
}

/// What the host limits: the machine as a whole, with what running it takes.
#[must_use]
pub fn outside(resources: &Resources, memory: u64, overhead: u64) -> Resources {
    Resources {
        memory: resources.memory.filter(|asked| *asked > 0).map(|_| memory.saturating_add(overhead)),
        memory_reservation: resources.memory_reservation,
        memory_swap: None,
        pids: None,
        ..resources.clone()
    }
}

/// The guest's cgroups.
#[must_use]
pub fn layout() -> Layout {
    let controllers =
        vec![Controller::Cpu, Controller::Cpuset, Controller::Io, Controller::Memory, Controller::Pids];
    Layout {
        hierarchies: vec![Hierarchy {
            mount: PathBuf::from("/sys/fs/cgroup"),
            unified: true,
            controllers,
            name: None,
            own: PathBuf::new(),
        }],
        kernel: KERNEL,
    }
}

/// The root as the guest sees it.
#[must_use]
pub fn root() -> Root {
    Root::Path(Path::new("/").join(DECK).join(DECK_ROOT))
}

/// Whether an image is booted as a whole, with the kernel that it carries.
#[must_use]
pub fn is_whole(request: &CreateRequest) -> bool {
    request.isolation == Isolation::Vm && request.kernel.as_deref() == Some(kernel::OF_IMAGE)
}

/// The machine of a whole image is its init's: nothing in it is kept from that.
pub fn open_up(plan: &mut Plan) {
    for mount in &mut plan.mounts {
        // The kernel's own, in which nodes come and go with their devices, and the whole tree of cgroups.
        let fstype = match mount.target.to_str() {
            Some("/dev") => "devtmpfs",
            Some("/sys/fs/cgroup") => "cgroup2",
            _ => continue,
        };
        if !matches!(mount.kind, Planned::Bind(_)) {
            let (fstype, source) = (fstype.to_owned(), fstype.to_owned());
            mount.kind = Planned::Filesystem { fstype, source, options: Vec::new() };
        }
    }
}

/// Turns a plan of the host's into the guest's: its binds become shares of the machine, which are returned.
pub fn move_inside(plan: &mut Plan) -> Vec<Share> {
    // The machine's only network is the container's.
    plan.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    plan.root_propagation = Propagation::Private;
    let mounts = Path::new("/").join(DECK).join(DECK_MOUNTS);
    let mut shares = Vec::new();
    for mount in &mut plan.mounts {
        if let Planned::Bind(bind) = &mut mount.kind {
            let source = mounts.join(shares.len().to_string());
            let read_only = (mount.set | mount.set_recursive) & attribute::RDONLY != 0;
            shares.push(Share {
                source: std::mem::replace(&mut bind.source, source),
                beneath: bind.beneath.take(),
                recursive: bind.recursive,
                read_only,
            });
            bind.recursive = true;
        }
    }
    shares
}

/// Whom a machine becomes.
#[must_use]
pub fn uid(record: &Record) -> u32 {
    let digits = record.id.as_str().get(..4).unwrap_or_default();
    FIRST_UID + u32::from_str_radix(digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;
    use crate::request::{DeviceRequest, MountRequest};

    fn refused(change: impl FnOnce(&mut CreateRequest)) -> String {
        let mut request = request();
        change(&mut request);
        check(&request).unwrap_err().to_string()
    }

    #[test]
    fn what_no_machine_can_honour_is_named_with_the_reason() {
        let container = || NamespaceMode::Container("pg".to_owned());
        assert!(refused(|r| r.pid = NamespaceMode::Host).starts_with("--pid=host is not possible"));
        assert!(refused(|r| r.ipc = container()).contains("--ipc=container:pg"));
        assert!(refused(|r| r.uts = NamespaceMode::Host).contains("--uts=host"));
        assert!(refused(|r| r.network = NetworkMode::Host).contains("kernel of its own"));
        assert!(refused(|r| r.network = NetworkMode::Container("x".into())).contains("container:x"));
        let device =
            DeviceRequest { host: "/dev/sda".into(), container: "/dev/sda".into(), access: "rw".into() };
        assert!(refused(|r| r.devices.push(device)).contains("--device /dev/sda"));
        let bind = MountRequest {
            source: MountSource::Bind {
                path: "/x".into(),
                create: true,
                propagation: Some("rshared".into()),
                recursive: true,
            },
            target: "/x".into(),
            read_only: false,
        };
        assert!(refused(|r| r.mounts.push(bind)).contains("bind-propagation=rshared"));
        assert!(refused(|r| r.resources.memory_swap = Some(-1)).contains("--memory-swap"));
        assert!(refused(|r| r.resources.memory = Some(20 << 20)).contains("too little"));
        check(&request()).unwrap();
    }

    #[test]
    fn processors_are_rounded_up_and_memory_to_megabytes() {
        let host = Host::for_tests();
        let with = |nano| Resources { nano_cpus: nano, ..Resources::default() };
        assert_eq!(cpus_unasked(Monitor::Kvm, &host), host.cpus);
        assert_eq!(cpus_unasked(Monitor::Qemu, &host), 1);
        assert_eq!(cpus(&with(None), 2), 2);
        assert_eq!(cpus(&with(Some(1)), 2), 1);
        assert_eq!(cpus(&with(Some(1_500_000_000)), 2), 2);
        let quota = Resources { cpu_quota: Some(250_000), ..Resources::default() };
        assert_eq!(cpus(&quota, 2), 3);
        let asked = Resources { memory: Some((300 << 20) - 1), ..Resources::default() };
        assert_eq!(memory(&asked, 1 << 40), 300 << 20);
        assert_eq!(memory(&Resources::default(), 1 << 40), MEMORY);
        assert_eq!(memory(&Resources::default(), 1 << 30), 512 << 20);
    }

    #[test]
    fn limits_are_divided_between_guest_and_host() {
        let asked = Resources {
            memory: Some(300 << 20),
            pids: Some(10),
            cpu_shares: Some(512),
            ..Resources::default()
        };
        assert_eq!(inside(&asked), Resources { pids: Some(10), ..Resources::default() });
        let outside = outside(&asked, 300 << 20, 100 << 20);
        assert_eq!((outside.memory, outside.pids, outside.cpu_shares), (Some(400 << 20), None, Some(512)));
    }
}
