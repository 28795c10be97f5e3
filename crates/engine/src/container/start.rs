//! `start`: from a record to a running process.
//!
//! The supervisor is spawned first and makes cgroups while this process makes the network; then it gets the
//! descriptors and goes. Whatever fails is undone: by the supervisor if it has gone, by this process if not.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_runtime::plan::{MountKind as PlannedMount, Options, Plan, Root, WindowSize};
use cata_runtime::user::UserSpec;
use cata_sandbox::client::Attached;
use cata_sandbox::launch::{Go, Isolation, Launch, LogPlan, StdinPlan, Undo};
use cata_sandbox::protocol::{Streams, Until};
use cata_sandbox::status::{Status, StatusKind};
use cata_spec::{ContainerId, Platform};

use crate::cdi;
use crate::container::accounts;
use crate::container::create::give_root;
use crate::container::devices::{find_block, find_device, host_devices};
use crate::container::filter;
use crate::container::live::{NETWORK_FILE, NetworkFacts, Owner, RAN_FILE, STARTED_FILE, is_concerned};
use crate::container::ranges;
use crate::container::wait::Waiter;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::event::disconnects;
use crate::host;
use crate::ledger::{self, Durability};
use crate::network::Surroundings;
use crate::plan::{hosts, namespaces, platform, spec};
use crate::record::{MountKind, MountPoint, Record};
use crate::request::{DeviceRequest, NamespaceMode, NetworkMode};
use crate::rootless::cgroups;
use crate::timing::Timing;
use crate::volume;

/// Docker's rotation is off by default and fills disks; ours is on.
const LOG_MAX_SIZE: u64 = 10 * 1000 * 1000;
const LOG_MAX_FILE: u32 = 5;

/// How long a supervisor may take to clean up after its container.
const PREDECESSOR: Duration = Duration::from_secs(20);

/// How long a supervisor whose maker was killed may take to run its container or to leave: a machine boots.
const ORPHAN: Duration = Duration::from_secs(150);

/// What the starter wants of a start.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Streams, from the first byte on.
    pub attach: Option<Streams>,
    /// The terminal's first size: rows, columns.
    pub window: Option<(u16, u16)>,
}

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// Its first process as the host sees it.
    pub pid: i32,
    /// What the host could not give.
    pub withheld: Vec<String>,
    /// The streams that were asked for, from the first byte on.
    pub streams: Attached,
    /// To wait for its end; the supervisor answers when it comes.
    pub waiter: Waiter,
}

impl Engine {
    /// Starts a created or ended container; `None` if it runs already.
    ///
    /// # Errors
    /// [`Error::Start`] when its command cannot be started, with Docker's exit code; whatever the network,
    /// a mount or a limit says.
    pub fn start(
        &self,
        record: &Record,
        options: StartOptions,
        timing: &mut Timing,
    ) -> Result<Option<Started>> {
        self.start_with(record, options, &[], timing)
    }

    /// As [`Engine::start`], with environment that no record keeps: secrets of a build.
    pub(crate) fn start_with(
        &self,
        record: &Record,
        options: StartOptions,
        env: &[String],
        timing: &mut Timing,
    ) -> Result<Option<Started>> {
        let lock = self.lock(&record.id)?;
        let (status, owner) = self.settled(&record.id)?;
        if owner == Owner::Alive {
            if status.status == StatusKind::Paused {
                return Err(Error::State {
                    what: "cannot start a paused container, try unpause instead".to_owned(),
                    hint: Some(format!("cata unpause {}", record.name)),
                });
            }
            return Ok(None);
        }
        self.wait_for_predecessor(&record.id)?;
        self.recover_lost(&record.id)?;
        self.check_mounts(record)?;
        let state_dir = self.make_live_dir(record)?;
        let started = self.launch(record, &state_dir, options, env, timing);
        if started.is_err() {
            // Once it has left: a start that comes next must not take it for one whose container runs.
            let _ = self.wait_for_predecessor(&record.id);
            // The supervisor has undone what it held; what it never got is ours.
            self.clear_failed_start(record);
        }
        drop(lock);
        started.map(Some)
    }

    /// The present of a container whose lock the caller has. A supervisor that has nothing to say is then one whose
    /// maker was killed, for a maker has the lock: it leaves, or the container runs, if it was told to go before.
    pub(super) fn settled(&self, id: &ContainerId) -> Result<(Status, Owner)> {
        let start = std::time::Instant::now();
        loop {
            let (status, owner) = self.status(id)?;
            let speaks =
                matches!(status.status, StatusKind::Running | StatusKind::Paused | StatusKind::Restarting);
            if owner != Owner::Alive || speaks {
                return Ok((status, owner));
            }
            if start.elapsed() > ORPHAN {
                return Err(Error::Timeout(format!(
                    "the supervisor of container {} to say a word",
                    id.short()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A supervisor whose container has ended cleans up after it: what it still removes must not be its
    /// successor's.
    fn wait_for_predecessor(&self, id: &ContainerId) -> Result<()> {
        let start = std::time::Instant::now();
        while cata_sandbox::status::alive(&self.paths.live(id)) {
            if start.elapsed() > PREDECESSOR {
                return Err(Error::Timeout(format!("the supervisor of container {} to leave", id.short())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn launch(
        &self,
        record: &Record,
        state_dir: &Path,
        options: StartOptions,
        env: &[String],
        timing: &mut Timing,
    ) -> Result<Started> {
        let mut launch = self.plan_launch(record, state_dir)?;
        launch.plan.process.env.extend_from_slice(env);
        launch.plan.process.window = options.window.map(|(rows, columns)| WindowSize { rows, columns });
        timing.mark("launch plan");
        if options.attach.is_some() {
            self.tell_container(record, "attach", &[]);
        }
        self.tell_mounts(record);
        let pending =
            cata_sandbox::launch(&launch, &self.supervisor()?).map_err(|e| start_error(record, &e))?;
        timing.mark("supervisor");
        let (go, fds, mut withheld) = match self.surroundings(record, state_dir, timing) {
            Ok(surroundings) => surroundings,
            Err(error) => return Err(pending.complaint().map_or(error, |e| start_error(record, &e))),
        };
        let running = pending.go(go, fds, options.attach).map_err(|e| start_error(record, &e))?;
        if is_concerned(record.request.restart) {
            // Only a boot looks for it: not to have it is no reason to end what runs.
            let _ = fs::write(self.paths.container(&record.id).join(RAN_FILE), b"");
        }
        match running.boot {
            Some(boot) => {
                let parts = [("kernel", boot.kernel), ("guest", boot.guest), ("process", boot.process)];
                timing.mark_before("vmm", &parts.map(|(name, took)| (name, Duration::from_micros(took))));
            }
            None => timing.mark("process"),
        }
        let mut waiter = Waiter::new(running.client);
        waiter.ask(Until::NotRunning)?;
        withheld.extend(running.withheld);
        Ok(Started { pid: running.pid, withheld, streams: running.attached, waiter })
    }

    /// What is made while the supervisor makes itself ready: the network, and the files that speak of it.
    fn surroundings(
        &self,
        record: &Record,
        state_dir: &Path,
        timing: &mut Timing,
    ) -> Result<(Go, Vec<OwnedFd>, Vec<String>)> {
        let Surroundings { facts, mut go, fds, withheld } = self.connect(record, state_dir)?;
        go.endings = disconnects(record, &facts);
        self.tell_connected(record, &facts);
        timing.mark("network");
        self.write_network_files(record, &facts)?;
        ledger::write(&state_dir.join(NETWORK_FILE), &facts, Durability::Volatile)?;
        timing.mark("files");
        Ok((go, fds, withheld))
    }

    /// A start that failed leaves a container that can be started again, and nothing else.
    fn clear_failed_start(&self, record: &Record) {
        // Leases and ports: the supervisor may never have heard of them.
        let _ = self.release_network(&record.id);
        let _ = fs::remove_file(self.paths.container(&record.id).join(STARTED_FILE));
        if !cata_sandbox::status::alive(&self.paths.live(&record.id)) {
            let _ = fs::remove_dir_all(self.paths.live(&record.id));
        }
    }

    fn make_live_dir(&self, record: &Record) -> Result<PathBuf> {
        let dir = self.paths.live(&record.id);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(Error::file("clear", &dir))?;
        }
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Error::file("create", &dir))?;
        let home = self.paths.container(&record.id);
        let exit = home.join(cata_sandbox::status::EXIT_FILE);
        match fs::remove_file(&exit) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", exit)(error));
            }
            _ => {}
        }
        let mark = home.join(STARTED_FILE);
        fs::write(&mark, b"").map_err(Error::file("write", mark))?;
        Ok(dir)
    }

    /// A bind's source may have gone since creation.
    fn check_mounts(&self, record: &Record) -> Result<()> {
        for mount in &record.mounts {
            let there = match &mount.kind {
                MountKind::Tmpfs => true,
                MountKind::Bind { .. } => mount.source.exists(),
                MountKind::Volume { name, .. } => volume::reaches(&self.paths, name, &mount.source),
            };
            if !there {
                return Err(Error::NoMountSource(mount.source.clone()));
            }
        }
        // Removed by hand, or never on the disk for certain before the power went: unpacked again from its blob.
        if !record.image.layers.iter().all(|layer| self.images.believes(layer)) {
            self.layers_for(&self.image(&record.image.id)?, record.users.as_ref())?;
        }
        Ok(())
    }

    fn plan_launch(&self, record: &Record, state_dir: &Path) -> Result<Launch> {
        let request = &record.request;
        let config = &record.config;
        let dir = self.paths.container(&record.id);
        let (undo, undo_late) = self.undo(record);
        let (plan, vm) = match request.isolation {
            Isolation::Process => {
                platform::container(&record.image.platform, &Platform::host(), host::formats)?;
                (self.plan_process(record)?, None)
            }
            Isolation::Vm => {
                let (plan, order) = self.plan_machine(record, state_dir)?;
                (plan, Some(order))
            }
        };
        Ok(Launch {
            id: record.id.clone(),
            isolation: request.isolation,
            plan,
            vm,
            state_dir: state_dir.to_owned(),
            container_dir: dir,
            log: request
                .log
                .clone()
                .unwrap_or(LogPlan::JsonFile { max_size: LOG_MAX_SIZE, max_file: LOG_MAX_FILE }),
            stdin: match (request.open_stdin, request.stdin_once) {
                (false, _) => StdinPlan::Closed,
                (true, true) => StdinPlan::Once,
                (true, false) => StdinPlan::Open,
            },
            restart: request.restart,
            health: config.health.clone(),
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout.map(Duration::from_secs),
            auto_remove: request.auto_remove,
            leashed: request.leashed,
            story: self.story(record),
            undo,
            undo_late,
        })
    }

    /// What the supervisor does when the container has ended for good: with `--rm`, everything.
    fn undo(&self, record: &Record) -> (Vec<Undo>, Vec<Undo>) {
        if !record.request.auto_remove {
            return (Vec::new(), Vec::new());
        }
        let away = self.paths.removed().join(record.id.as_str());
        let first = vec![
            // Whatever it is called by then; its first name may be another's.
            Undo::UnlinkPointing { directory: self.paths.names(), text: record.id.to_string() },
            Undo::Rename(self.paths.container(&record.id), away.clone()),
        ];
        let mut late = vec![Undo::RemoveTree(away)];
        if record.users.is_some() {
            late.insert(0, ranges::release(&self.paths, &record.id));
        }
        late.extend(record.anonymous_volumes().map(|name| Undo::RemoveTreeUnless {
            tree: self.paths.volume(name),
            exists: volume::shared(&self.paths, name),
        }));
        (first, late)
    }

    fn plan_process(&self, record: &Record) -> Result<Plan> {
        let dir = self.dir(&record.id);
        let (filter, profile) = self.filter(record)?;
        let mut spec = self.document(record, profile)?;
        if let Some(profile) =
            spec.process().as_ref().and_then(|process| process.apparmor_profile().as_deref())
        {
            self.ready_apparmor(profile)?;
        }
        if spec.hooks().is_some() {
            // Where the runtime shows them the root file system.
            if let Some(root) = spec.root_mut() {
                root.set_path(dir.upper());
            }
            ledger::write(&dir.config(), &spec, Durability::Volatile)?;
        }
        let mut groups = record.request.groups.clone();
        let given = spec.process().as_ref().and_then(|process| process.user().additional_gids().as_ref());
        groups.extend(given.into_iter().flatten().map(u32::to_string));
        let options = Options {
            filter,
            root: Some(Root::Overlay {
                lower: record.image.layers.clone(),
                upper: Some(dir.upper()),
                work: Some(dir.work()),
                options: Vec::new(),
                as_on_disk: record.users.as_ref().is_some_and(|users| users.on_disk),
            }),
            user: Some(UserSpec::Named { user: record.config.user.clone(), groups }),
            // Those of devices, none of which is ours to run.
            hooks: true,
            init: record.request.init,
            ..Options::default()
        };
        let mut plan = cata_runtime::plan::plan(&spec, &cata_runtime::plan::Host::detect(), &options)
            .map_err(|e| Error::Runtime(Foreign::new(Kind::InvalidArgument, None, &e)))?;
        if self.host.rootless {
            crate::rootless::without(&mut plan, &record.request)?;
        }
        self.keep_in_volumes(record, &mut plan);
        if let NamespaceMode::Container(name) = &record.request.ipc {
            share_shm(&mut plan, namespaces::Peers::pid(self, name)?);
        }
        Ok(plan)
    }

    /// Whoever else has a volume may have made a link of a path in it.
    pub(super) fn keep_in_volumes(&self, record: &Record, plan: &mut Plan) {
        for mount in &mut plan.mounts {
            let point = record.mounts.iter().find(|point| Path::new(&point.target) == mount.target);
            if let PlannedMount::Bind(bind) = &mut mount.kind
                && let Some(MountPoint { kind: MountKind::Volume { name, .. }, source, .. }) = point
                && *source == bind.source
                && *source != volume::data(&self.paths, name)
            {
                bind.beneath = Some(volume::files(&self.paths, name));
            }
        }
    }

    /// The OCI document of a container as it would start now.
    pub(crate) fn spec(&self, record: &Record) -> Result<cata_spec::runtime::Spec> {
        self.document(record, filter::profile(record)?)
    }

    fn document(
        &self,
        record: &Record,
        seccomp: Option<cata_spec::runtime::LinuxSeccomp>,
    ) -> Result<cata_spec::runtime::Spec> {
        let request = &record.request;
        let mut found = Vec::new();
        // A machine has devices of its own.
        if request.privileged && request.isolation == Isolation::Process {
            found = host_devices()?;
        }
        for device in &request.devices {
            found.extend(find_device(device)?);
        }
        let given = spec::Given {
            namespaces: namespaces::plan(request, self)?,
            devices: found,
            block: request.resources.block.iter().map(find_block).collect::<Result<_>>()?,
            seccomp,
            apparmor: self.apparmor(record)?,
            cgroup: self.future_cgroup(record),
            own_network_files: !matches!(request.network, NetworkMode::Container(_)),
            files: accounts::files(&self.dir(&record.id)),
        };
        let mut spec = spec::plan(record, &self.dir(&record.id), &given)?;
        cdi::apply(&mut spec, &cdi::edits(request)?, &|path| {
            let request =
                DeviceRequest { host: path.to_owned(), container: path.to_owned(), access: "rwm".to_owned() };
            match find_device(&request)?.as_slice() {
                [found] => Ok((found.block, found.major, found.minor)),
                _ => Err(Error::Invalid(format!("{} is not one device", path.display()))),
            }
        })?;
        Ok(spec)
    }

    /// Where the container's cgroup will be.
    fn future_cgroup(&self, record: &Record) -> PathBuf {
        let path = record.cgroup_path();
        if !self.host.rootless {
            return path;
        }
        match cgroups::home() {
            Some(home) => home.join(path.strip_prefix("/").unwrap_or(&path)),
            None => path,
        }
    }

    /// Where a running container's cgroup is. `what` needs it.
    pub(crate) fn cgroup_of(&self, record: &Record, pid: i32, what: &str) -> Result<PathBuf> {
        if !self.host.rootless {
            return Ok(record.cgroup_path());
        }
        cgroups::of(pid, record.id.as_str()).ok_or_else(|| crate::rootless::no_cgroup(what))
    }

    /// `/etc/hosts` and `/etc/resolv.conf`, once addresses are known.
    fn write_network_files(&self, record: &Record, facts: &NetworkFacts) -> Result<()> {
        let request = &record.request;
        if matches!(request.network, NetworkMode::Container(_)) {
            return Ok(());
        }
        let dir = self.dir(&record.id);
        let own = facts.addresses();
        let gateway = facts.endpoints.iter().find_map(|e| e.gateway4).map(|g| g.to_string());
        let extra = request
            .extra_hosts
            .iter()
            .map(|(name, address)| match address.as_str() {
                "host-gateway" => gateway
                    .clone()
                    .map(|gateway| (name.clone(), gateway))
                    .ok_or_else(|| Error::Invalid("host-gateway needs a bridge network".to_owned())),
                _ => Ok((name.clone(), address.clone())),
            })
            .collect::<Result<Vec<_>>>()?;
        let text = if request.network == NetworkMode::Host && extra.is_empty() {
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            hosts::text(&extra, &own, &record.config.hostname, request.domainname.as_deref())
        };
        for (path, text) in [(dir.hosts(), text), (dir.resolv_conf(), self.resolv_conf(record, facts.names))]
        {
            write_in_place(&path, &text)?;
            give_root(record, &path)?;
        }
        Ok(())
    }
}

/// Whose IPC namespace is joined, his `/dev/shm` is shared too: POSIX shared memory lives there.
fn share_shm(plan: &mut Plan, pid: u32) {
    for mount in plan.mounts.iter_mut().filter(|mount| mount.target == Path::new("/dev/shm")) {
        if let PlannedMount::Bind(bind) = &mut mount.kind {
            bind.namespace = Some(PathBuf::from(format!("/proc/{pid}/ns/mnt")));
        }
    }
}

/// Bind mounts show an inode: the file is rewritten, not replaced. Who reads it meanwhile, or when this process was
/// killed meanwhile, finds the old text or the new one, perhaps with empty lines behind it.
pub(crate) fn write_in_place(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
        let before = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let padding = "\n".repeat(before.saturating_sub(text.len()));
        file.write_all_at((text.to_owned() + &padding).as_bytes(), 0)?;
        if padding.is_empty() { Ok(()) } else { file.set_len(text.len() as u64) }
    };
    write().map_err(Error::file("write", path))
}

fn start_error(record: &Record, error: &cata_sandbox::LaunchError) -> Error {
    Error::Start {
        name: record.name.to_string(),
        exit_code: u8::try_from(error.exit_code()).unwrap_or(125),
        message: crate::error::chain(error),
        hint: error.hint(),
    }
}

impl namespaces::Peers for Engine {
    fn pid(&self, container: &str) -> Result<u32> {
        let record = self.find(container)?;
        if record.request.isolation == Isolation::Vm {
            // Those of the process that runs it are the host's, or nobody's.
            return Err(Error::Unsupported {
                what: format!(
                    "cannot join namespaces of {}: a virtual machine has a kernel of its own, and shares none",
                    record.name
                ),
                hint: "containers and virtual machines on one network reach each other by name".to_owned(),
            });
        }
        let (status, owner) = self.status(&record.id)?;
        match u32::try_from(status.pid) {
            Ok(pid) if owner == Owner::Alive && pid != 0 => Ok(pid),
            _ => Err(Error::State {
                what: format!("cannot join namespaces of a non running container: {}", record.name),
                hint: Some(format!("start it with `cata start {}`", record.name)),
            }),
        }
    }
}
