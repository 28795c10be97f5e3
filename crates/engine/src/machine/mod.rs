//! Machines: long-lived virtual machines with the engine in them (`cata machine`, `cata --machine NAME …`).
//!
//! A machine is a container of its own kind: a privileged one in a virtual machine, whose first process
//! ([`init`]) keeps a disk mounted where the engine in it has its root. Records, names, streams, networks and
//! states are those of containers; there is no second owner of anything.

mod disk;
pub mod init;
mod root;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use cata_image::Progress;
use cata_sandbox::launch::Isolation;
use cata_sandbox::status::StatusKind;
use cata_spec::Name;

use crate::container::exec::{ExecOptions, Session};
use crate::container::live::{Owner, View};
use crate::container::machine::MachineFacts;
use crate::container::{RemoveOptions, StartOptions};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::request::{
    CreateRequest, MachineDisk, MonitorRequest, MountRequest, MountSource, NetworkMode, PortRequest,
    Resources,
};
use crate::timing::Timing;

/// Where the engine's programs are in a machine.
const PROGRAMS: &str = "/usr/local/bin";
/// The engine in a machine.
pub const PROGRAM: &str = "/usr/local/bin/cata";
/// Containers in a machine are stopped before it is.
const STOP_TIMEOUT: i64 = 120;
/// Memory of a machine that was given none.
const MEMORY: u64 = 2 << 30;
/// A disk of a machine that was given none; what was never written takes no space.
const DISK: u64 = 64 << 30;
/// The least that takes an image.
const DISK_MIN: u64 = 64 << 20;

/// `machine create`.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineRequest {
    /// Its name.
    pub name: Name,
    /// What its own files are; `None`: busybox and nothing else.
    pub image: Option<String>,
    /// Virtual processors; `None`: as many as the host has.
    pub cpus: Option<u32>,
    /// Bytes of memory; `None`: 2 GiB.
    pub memory: Option<u64>,
    /// Bytes of its disk; `None`: 64 GiB.
    pub disk: Option<u64>,
    /// Ports of the machine's, published on the host.
    pub ports: Vec<PortRequest>,
    /// Its networks.
    pub network: NetworkMode,
    /// What runs it.
    pub monitor: MonitorRequest,
    /// Its kernel by name; `None`: the default one.
    pub kernel: Option<String>,
}

impl MachineRequest {
    /// A machine with every default.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self {
            name,
            image: None,
            cpus: None,
            memory: None,
            disk: None,
            ports: Vec::new(),
            network: NetworkMode::Networks(Vec::new()),
            monitor: MonitorRequest::Auto,
            kernel: None,
        }
    }
}

/// PURE: the container that a machine is.
fn plan(request: &MachineRequest, image: String, programs: [PathBuf; 2]) -> Result<CreateRequest> {
    let disk = request.disk.unwrap_or(DISK);
    if disk < DISK_MIN {
        return Err(Error::Invalid(format!("a disk of less than {} MiB holds no image", DISK_MIN >> 20)));
    }
    let bind = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        MountRequest {
            source: MountSource::Bind { path, create: false, propagation: None, recursive: false },
            target: format!("{PROGRAMS}/{name}"),
            read_only: true,
        }
    };
    // What is gone after a boot must not be found after the next.
    let volatile = |target: &str| MountRequest {
        source: MountSource::Tmpfs { size: None, mode: Some(0o755), options: Vec::new() },
        target: target.to_owned(),
        read_only: false,
    };
    Ok(CreateRequest {
        command: Vec::new(),
        entrypoint: Some([PROGRAM, init::WORD].map(str::to_owned).to_vec()),
        name: Some(request.name.clone()),
        hostname: Some(request.name.to_string()),
        user: Some("0:0".to_owned()),
        workdir: Some("/".to_owned()),
        privileged: true,
        isolation: Isolation::Vm,
        monitor: request.monitor,
        kernel: request.kernel.clone(),
        mounts: programs.into_iter().map(bind).chain([volatile("/run"), volatile("/tmp")]).collect(),
        network: request.network.clone(),
        ports: request.ports.clone(),
        resources: Resources {
            memory: Some(request.memory.unwrap_or(MEMORY)),
            nano_cpus: request.cpus.map(|cpus| u64::from(cpus) * 1_000_000_000),
            ..Resources::default()
        },
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: Some(STOP_TIMEOUT),
        machine: Some(MachineDisk { bytes: disk }),
        ..CreateRequest::new(image)
    })
}

impl Engine {
    /// Makes a machine; nothing runs yet.
    ///
    /// # Errors
    /// As `create`; no `mke2fs`, no programs that run without libraries.
    pub fn machine_create(&self, request: &MachineRequest, progress: &dyn Progress) -> Result<Record> {
        let program = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
        let programs = [program, self.companion("cata-supervisor")?];
        for program in &programs {
            root::check_static(program)?;
        }
        disk::check()?;
        let image = match &request.image {
            Some(image) => image.clone(),
            None => self.machine_image()?,
        };
        let create = plan(request, image, programs)?;
        crate::plan::vm::check(&create)?;
        let record = self.create(create, progress, &mut Timing::default())?.record;
        let made = self.make_disk(&record);
        if made.is_err() {
            // The first error is the one to tell.
            let _ = self.remove(record.id.as_str(), RemoveOptions { force: true, volumes: true });
        }
        made.map(|()| record)
    }

    /// Starts a machine and waits until the engine in it can be asked. False: it ran already.
    ///
    /// # Errors
    /// As `start`; [`Error::State`] when its first process cannot do its work.
    pub fn machine_start(&self, name: &str) -> Result<bool> {
        let record = self.machine_find(name)?;
        // One whose maker was killed has none yet.
        self.make_disk(&record)?;
        let started = self.start(&record, StartOptions::default(), &mut Timing::default())?.is_some();
        let argv = [PROGRAM, init::WORD, "--wait"].map(str::to_owned).to_vec();
        let options = ExecOptions { argv, ..ExecOptions::default() };
        let asked = self.exec(record.id.as_str(), options, [None, None, None]).and_then(Session::finish);
        match asked {
            Ok(0) => Ok(started),
            Ok(_) | Err(Error::State { .. }) => Err(Error::State {
                what: format!("machine {name} does not become ready"),
                hint: Some(format!("`cata logs {name}` shows what it says")),
            }),
            Err(error) => Err(error),
        }
    }

    /// A machine by its name or id.
    ///
    /// # Errors
    /// [`Error::NoMachine`], also for a container that is none.
    pub fn machine_find(&self, name: &str) -> Result<Record> {
        match self.find(name) {
            Ok(record) if record.request.machine.is_some() => Ok(record),
            Ok(_) | Err(Error::NoContainer(_)) => Err(Error::NoMachine(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Every machine, newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn machine_list(&self) -> Result<Vec<View>> {
        let mut views = self.views()?;
        views.retain(|view| view.record.request.machine.is_some());
        Ok(views)
    }

    /// One machine with its present.
    ///
    /// # Errors
    /// [`Error::NoMachine`].
    pub fn machine_view(&self, name: &str) -> Result<View> {
        self.view(self.machine_find(name)?)
    }

    /// Virtual processors of a machine: those it runs or last ran with; before its first start, where no number was
    /// asked for, the host's.
    #[must_use]
    pub fn machine_cpus(&self, record: &Record) -> u32 {
        let facts = self.machine_facts(record);
        facts.map_or_else(
            || crate::plan::vm::cpus(&record.request.resources, self.host.cpus),
            |facts| facts.cpus,
        )
    }

    /// What runs a machine, or ran it last.
    #[must_use]
    pub fn machine_monitor(&self, record: &Record) -> Option<MachineFacts> {
        self.machine_facts(record)
    }

    /// Bytes that a machine's disk takes on the host.
    #[must_use]
    pub fn machine_disk_used(&self, record: &Record) -> u64 {
        disk::used(&self.dir(&record.id).disk())
    }

    /// The engine in a machine, with these words.
    ///
    /// # Errors
    /// [`Error::NoMachine`]; [`Error::State`] when it does not run.
    pub fn machine_exec(
        &self,
        name: &str,
        options: ExecOptions,
        stdio: [Option<BorrowedFd<'_>>; 3],
    ) -> Result<Session> {
        let record = self.machine_find(name)?;
        let (status, owner) = self.status(&record.id)?;
        if owner != Owner::Alive || status.status != StatusKind::Running {
            return Err(Error::State {
                what: format!("machine {name} is not running"),
                hint: Some(format!("cata machine start {name}")),
            });
        }
        self.exec(record.id.as_str(), options, stdio)
    }

    fn make_disk(&self, record: &Record) -> Result<()> {
        let path = self.dir(&record.id).disk();
        match &record.request.machine {
            Some(disk) if !path.exists() => disk::make(&path, disk.bytes),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> MachineRequest {
        MachineRequest::new(Name::parse("dev").unwrap())
    }

    fn programs() -> [PathBuf; 2] {
        ["/opt/cata", "/opt/cata-supervisor"].map(PathBuf::from)
    }

    #[test]
    fn plan_is_a_container_that_every_check_lets_through() {
        let plan =
            plan(&MachineRequest { cpus: Some(3), ..asked() }, "image".to_owned(), programs()).unwrap();
        crate::plan::vm::check(&plan).unwrap();
        assert_eq!((plan.resources.nano_cpus, plan.resources.memory), (Some(3_000_000_000), Some(MEMORY)));
        let targets: Vec<_> = plan.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/usr/local/bin/cata", "/usr/local/bin/cata-supervisor", "/run", "/tmp"]);
        assert_eq!(plan.machine, Some(MachineDisk { bytes: DISK }));
    }

    #[test]
    fn plan_refuses_a_disk_that_holds_nothing() {
        let request = MachineRequest { disk: Some(1 << 20), ..asked() };
        assert!(plan(&request, "image".to_owned(), programs()).unwrap_err().to_string().contains("disk"));
    }
}
