//! RUN: a container like any other, upon the stage's layers; what it writes is the step's layer.
//!
//! It is leashed: when this process ends, however it ends, the container is killed and removed. Its upper
//! directory is in the step's own directory and only linked from the container's, so that what is removed
//! with the container is the link.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cata_build::key::{self, Key};
use cata_build::metadata::MountKind;
use cata_build::stage::{CopySource, CopyStep, Origin, RunStep};
use cata_sandbox::protocol::Streams;
use cata_sys::path::{Make, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, Timestamps};

use super::cache::Making;
use super::mounts::{Kept, bind};
use super::request::BuildEvent;
use super::solve::{Snapshot, Solved, Solver};
use super::sources::{self, Place};
use super::{BuildError, overlay};
use crate::cdi::{self, Catalog};
use crate::container::StartOptions;
use crate::container::names;
use crate::error::{Error, Kind};
use crate::plan::config::ImageDefaults;
use crate::plan::{config, mounts};
use crate::record::{ImageFacts, Record};
use crate::request::{
    Attach, CreateRequest, DeviceName, EndpointRequest, Isolation, MountRequest, MountSource, NetworkMode,
};
use crate::timing::Timing;

/// What a container's own mounts cover; an image need not have it.
const OWN: [(&str, Make); 6] = [
    ("/proc", Make::Directory),
    ("/dev", Make::Directory),
    ("/sys", Make::Directory),
    ("/etc/resolv.conf", Make::File),
    ("/etc/hosts", Make::File),
    ("/etc/hostname", Make::File),
];

/// A RUN with the places its mounts show.
pub(super) struct Prepared {
    pub(super) key: Key,
    /// As the step's mounts, for those that show files.
    places: Vec<Option<(Place, CopyStep)>>,
    network: String,
    devices: Vec<DeviceName>,
}

impl Solver<'_> {
    /// Finds the places that the mounts show, and with them the key.
    pub(super) fn prepare_run(&self, run: &RunStep, solved: &Solved) -> Result<Prepared, BuildError> {
        if run.insecure && !self.request.allow_insecure {
            return Err(BuildError::new(Kind::Denied, "security.insecure is not allowed")
                .hint(Some("--allow security.insecure".to_owned())));
        }
        let network = match run.network.as_deref() {
            None | Some("default") => self.request.network.clone(),
            Some(other) => other.to_owned(),
        };
        let mut places = Vec::new();
        let mut keys = Vec::new();
        for mount in &run.mounts {
            let (from, source) = match &mount.kind {
                MountKind::Bind { from, source } => (from.clone(), source),
                MountKind::Cache { from: Some(from), source, .. } => (Some(from.clone()), source),
                _ => {
                    places.push(None);
                    continue;
                }
            };
            let origin = match from {
                None => Origin::Context,
                Some(name) => self.origin(&name),
            };
            let place = self.place(&origin)?;
            let step = as_copy(origin, source);
            keys.push(self.mount_key(&place, &step)?);
            places.push(Some((place, step)));
        }
        let devices = self.devices(run)?;
        let surroundings = key::Surroundings {
            network: &network,
            machine: self.request.isolation == Isolation::Vm,
            hostname: self.request.hostname(),
        };
        let key = key::run(&solved.snapshot.key, run, &keys, surroundings);
        Ok(Prepared { key, places, network, devices })
    }

    /// Devices by name that the step gets: those that are described on this host, and allowed.
    fn devices(&self, run: &RunStep) -> Result<Vec<DeviceName>, BuildError> {
        let mut found = Vec::new();
        if run.devices.is_empty() {
            return Ok(found);
        }
        let catalog = Catalog::read(&cdi::DIRECTORIES.map(Path::new));
        for device in &run.devices {
            if !self.request.allow_devices.allows(&device.name) {
                return Err(BuildError::new(Kind::Denied, format!("device {} is not allowed", device.name))
                    .hint(Some(format!("--allow device={}, or --allow device for all", device.name))));
            }
            let names = catalog.asked(&device.name).map_err(BuildError::from);
            match names {
                Ok(names) => found.extend(names),
                Err(error) if device.required || error.kind != Kind::NotFound => return Err(error),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    pub(super) fn origin(&self, name: &str) -> Origin {
        // A stage sees those above it only; the planner has found it among them if it is one.
        let known = self.graph.stage_before(self.graph.stages.len(), name);
        known.map_or_else(|| Origin::External(name.to_owned()), Origin::Stage)
    }

    fn mount_key(&self, place: &Place, step: &CopyStep) -> Result<Key, BuildError> {
        let selection = match place {
            Place::Tree(snapshot) => {
                let selection = key::selection(&snapshot.key, step);
                let whole = matches!(step.sources.as_slice(), [CopySource::Path(path)] if path.is_empty());
                if whole && !snapshot.fresh {
                    return Ok(snapshot.key);
                }
                if !snapshot.fresh
                    && let Some(content) = self.cache.content(&selection)
                {
                    return Ok(content);
                }
                Some(selection)
            }
            _ => None,
        };
        let threads = usize::try_from(self.engine.host.cpus).unwrap_or(1);
        let found = sources::find(place, step, self.known(), |snapshot| self.paths(snapshot), threads)?;
        let key = found.key();
        if let Some(selection) = selection {
            self.cache.remember_content(&selection, &key);
        }
        Ok(key)
    }

    /// Runs the program. What it leaves is in `making`.
    pub(super) fn run(
        &self,
        run: &RunStep,
        prepared: &Prepared,
        solved: &Solved,
        making: &Making,
        number: usize,
    ) -> Result<bool, BuildError> {
        let mut kept = Kept::default();
        let mut requests = Vec::new();
        for (at, (mount, place)) in run.mounts.iter().zip(&prepared.places).enumerate() {
            requests.extend(self.mount(mount, place.as_ref(), at, making, &mut kept)?);
        }
        if let Some((path, script)) = &run.script {
            let file = making.extra("script")?.join("script");
            fs::write(&file, script).map_err(|e| BuildError::io("write", &file, e))?;
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&file, executable)
                .map_err(|e| BuildError::io("set the mode of", &file, e))?;
            requests.push(bind(&file, path, true));
        }
        let lower = self.lower(&solved.snapshot, &requests, making)?;
        let record = self.record(run, prepared, solved, requests, lower)?;
        let code = self.contain(record, run, making, &kept, number)?;
        if code == 0 {
            return Ok(true);
        }
        let shown = run.argv.join(" ");
        Err(BuildError::new(
            Kind::InvalidState,
            format!("process \"{}\" did not complete successfully: exit code: {code}", shown.trim_end()),
        )
        .hint((code == 137).then(|| "it was killed: was there enough memory?".to_owned())))
    }

    /// The stage's layers, and if the image lacks places to mount on, one below the step's own that has them:
    /// they are no work of the step.
    fn lower(
        &self,
        before: &Snapshot,
        requests: &[MountRequest],
        making: &Making,
    ) -> Result<Vec<PathBuf>, BuildError> {
        let mut lower = self.paths(before)?;
        let mut wanted: Vec<(&str, Make)> = OWN.to_vec();
        for request in requests {
            let make = match &request.source {
                MountSource::Bind { path, .. } if !path.is_dir() => Make::File,
                _ => Make::Directory,
            };
            wanted.push((&request.target, make));
        }
        let (stub, work) = (making.extra("stub")?, making.extra("stub-work")?);
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755))
            .map_err(|e| BuildError::io("make", &stub, e))?;
        let root = overlay::write(&lower, &stub, &work)?;
        let mut made = lower.is_empty();
        for (path, make) in wanted {
            // What is below these is not the image's.
            let covered = ["/dev/", "/proc/", "/sys/"].iter().any(|above| path.starts_with(above));
            if covered || root.open(Path::new(path), OFlags::PATH).is_ok() {
                continue;
            }
            made = true;
            make_stub(&root, path, make)?;
        }
        drop(root);
        if made {
            lower.insert(0, stub);
        }
        Ok(lower)
    }

    fn record(
        &self,
        run: &RunStep,
        prepared: &Prepared,
        solved: &Solved,
        mounts: Vec<MountRequest>,
        layers: Vec<PathBuf>,
    ) -> Result<Record, BuildError> {
        let asked = self.request;
        let base = solved.image.as_ref();
        let reference = base.and_then(|image| image.names.first()).map(cata_spec::Reference::familiar);
        let mut request = CreateRequest::new(reference.unwrap_or_else(|| "scratch".to_owned()));
        request.entrypoint = Some(run.argv.clone());
        let pairs = run.proxies.iter().chain(&run.env).filter_map(|line| line.split_once('='));
        request.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        request.user = Some(run.user.clone());
        request.workdir = Some(run.workdir.clone());
        request.hostname = Some(asked.hostname().unwrap_or("build").to_owned());
        request.device_names.clone_from(&prepared.devices);
        request.attach = Attach { stdin: false, stdout: true, stderr: true };
        request.auto_remove = true;
        request.leashed = true;
        request.isolation = asked.isolation;
        request.privileged = run.insecure;
        request.mounts = mounts;
        request.network = match prepared.network.as_str() {
            "" | "default" => NetworkMode::Networks(Vec::new()),
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            name => NetworkMode::Networks(vec![endpoint(name)?]),
        };
        request.extra_hosts.clone_from(&asked.extra_hosts);
        request.shm_size = asked.shm_size;
        request.ulimits.clone_from(&asked.ulimits);
        request.cgroup_parent.clone_from(&asked.cgroup_parent);
        request.stop_timeout = Some(0);
        request.log = Some(cata_sandbox::launch::LogPlan::None);
        if asked.isolation == Isolation::Vm {
            crate::plan::vm::check(&request)?;
        }
        let id = names::random_id();
        let config = config::plan(&request, &ImageDefaults::default(), &id)?;
        let no_name = || {
            cata_spec::Name::parse(names::random_id().as_str()).expect("64 hexadecimal characters are a name")
        };
        let points = mounts::plan(&request.mounts, Vec::new(), &[], no_name, |_| PathBuf::new())?;
        let name = cata_spec::Name::parse(&format!("build-{}", id.short()))
            .map_err(|error| BuildError::new(Kind::Internal, error.to_string()))?;
        request.name = Some(name.clone());
        let image = ImageFacts::new(base.map(AsRef::as_ref), &request.image, layers);
        Ok(Record::new((id, name), request, image, config, points))
    }

    /// Makes the container, passes its output on, and waits for its end.
    fn contain(
        &self,
        record: Record,
        run: &RunStep,
        making: &Making,
        kept: &Kept,
        number: usize,
    ) -> Result<i32, BuildError> {
        let engine = self.engine;
        let record = engine.commit(record)?;
        let dir = engine.dir(&record.id);
        let started = (|| {
            for (own, link) in [(making.diff(), dir.upper()), (making.work(), dir.work())] {
                fs::remove_dir(&link).and_then(|()| symlink(&own, &link)).map_err(|e| Error::File {
                    op: "link",
                    path: link,
                    source: e,
                })?;
            }
            let options = StartOptions {
                attach: Some(Streams { stdin: false, stdout: true, stderr: true }),
                window: None,
            };
            engine.start_with(&record, options, &kept.env, &mut Timing::default())
        })();
        let started = match started {
            Ok(Some(started)) => started,
            Ok(None) => return Err(BuildError::new(Kind::Internal, "the step's container runs already")),
            Err(error) => {
                // The first error is the one to tell.
                let options = crate::container::RemoveOptions { force: true, volumes: true };
                let _ = engine.remove(record.id.as_str(), options);
                return Err(self.start_error(error, run));
            }
        };
        let streams = [started.streams.stdout, started.streams.stderr];
        let cancelled = self.pass_on(streams, number);
        if cancelled {
            let _ = engine.kill(record.id.as_str(), None);
        }
        let exit = started.waiter.finish()?;
        engine.wait_gone(&record.id);
        if cancelled {
            return Err(BuildError::cancelled());
        }
        Ok(exit.code)
    }

    fn start_error(&self, error: Error, run: &RunStep) -> BuildError {
        match error {
            Error::Start { message, .. } => {
                let shell = run.argv.first().map(String::as_str).unwrap_or_default();
                BuildError::new(
                    Kind::InvalidState,
                    format!("cannot run \"{}\": {message}", run.argv.join(" ")),
                )
                .hint(message.contains("not found").then(|| {
                    format!("is {shell} in the image? RUN [\"program\", \"argument\"] needs no shell")
                }))
            }
            other => other.into(),
        }
    }

    /// Reads both streams up to their ends, line by line. Returns whether the build was cancelled meanwhile.
    fn pass_on(&self, streams: [Option<OwnedFd>; 2], number: usize) -> bool {
        let mut open: Vec<(File, Vec<u8>)> =
            streams.into_iter().flatten().map(|fd| (File::from(fd), Vec::new())).collect();
        let mut buffer = vec![0; 64 * 1024];
        let tick = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        while !open.is_empty() {
            if self.is_cancelled() {
                return true;
            }
            let mut ready: Vec<bool> = {
                let mut polled: Vec<PollFd<'_>> = open
                    .iter()
                    .map(|(file, _)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
                    .collect();
                if poll(&mut polled, Some(&tick)).is_err() {
                    continue;
                }
                polled.iter().map(|fd| !fd.revents().is_empty()).collect()
            };
            open.retain_mut(|(file, line)| {
                if !ready.remove(0) {
                    return true;
                }
                match rustix::io::read(&*file, &mut buffer) {
                    Ok(0) => {
                        self.line(number, line);
                        false
                    }
                    Ok(read) => {
                        for byte in &buffer[..read] {
                            match byte {
                                b'\n' => self.line(number, line),
                                byte if line.len() < 16 * 1024 => line.push(*byte),
                                _ => {}
                            }
                        }
                        true
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
                    Err(_) => false,
                }
            });
        }
        false
    }

    fn line(&self, step: usize, line: &mut Vec<u8>) {
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if !text.is_empty() || !line.is_empty() {
            self.progress.event(BuildEvent::Line { step, text });
        }
        line.clear();
    }
}

fn endpoint(name: &str) -> Result<EndpointRequest, BuildError> {
    let network = cata_spec::Name::parse(name)
        .map_err(|error| BuildError::new(Kind::InvalidArgument, format!("--network {name}: {error}")))?;
    Ok(EndpointRequest { network, ..crate::request::default_endpoint() })
}

/// A mount's source, in COPY's words.
fn as_copy(origin: Origin, source: &str) -> CopyStep {
    let path = cata_build::metadata::absolute("/", source).trim_start_matches('/').to_owned();
    CopyStep {
        add: false,
        origin,
        sources: vec![CopySource::Path(path)],
        destination: "/".to_owned(),
        into_directory: true,
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        checksum: None,
        unpack: None,
        keep_git_dir: false,
    }
}

/// Makes a place to mount on; the directory it is in keeps its times.
fn make_stub(root: &Root, path: &str, make: Make) -> Result<(), BuildError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut above = String::from("/");
    for part in &parts {
        let next = format!("{}/{part}", above.trim_end_matches('/'));
        if root.open(Path::new(&next), OFlags::PATH).is_err() {
            break;
        }
        above = next;
    }
    let times = root
        .open(Path::new(&above), OFlags::PATH)
        .and_then(rustix::fs::fstat)
        .map_err(|errno| BuildError::io("look at", Path::new(&above), errno))?;
    let mode = if make == Make::Directory { 0o755 } else { 0o644 };
    root.make(Path::new(path), make, mode).map_err(|errno| BuildError::io("make", Path::new(path), errno))?;
    if let Ok(fd) = root.open(Path::new(&above), OFlags::RDONLY | OFlags::DIRECTORY) {
        let nanos = i64::try_from(times.st_mtime_nsec).unwrap_or(0);
        let at = Timespec { tv_sec: times.st_mtime, tv_nsec: nanos };
        let _ = rustix::fs::futimens(&fd, &Timestamps { last_access: at, last_modification: at });
    }
    Ok(())
}
