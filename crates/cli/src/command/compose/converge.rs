//! From the containers that are there to those that are wanted: all services at once, each when those it depends
//! on are as far as it asks for.
//!
//! A replaced container is removed once the new one is there, under a name of its own until then: whoever is
//! killed between leaves two, and the next `up` keeps the one that fits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use cata_compose::plan::{Have, Step, Want, converge};
use cata_compose::service::Dependency;
use cata_compose::{Condition, Service, Which};
use cata_engine::container::{RemoveOptions, StartOptions};
use cata_engine::health::HealthStatus;
use cata_engine::record::{MountKind, Record};
use cata_engine::request::{CreateRequest, MountRequest, MountSource, PullPolicy};
use cata_engine::status::StatusKind;
use cata_engine::{Engine, Timing, Until};
use cata_spec::Name;

use super::existing::Existing;
use super::hooks;
use super::life::halt;
use super::project::Loaded;
use super::resources::tell;
use crate::options::convert::Use;
use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session;

/// How often a state that nobody tells is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// What `up` and `create` say.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    /// `--force-recreate`.
    pub(super) force: bool,
    /// `--no-recreate`.
    pub(super) keep: bool,
    /// `--renew-anon-volumes`.
    pub(super) renew: bool,
    /// `--scale`.
    pub(super) scale: BTreeMap<String, u32>,
    /// `--timeout`.
    pub(super) timeout: Option<i64>,
    /// Whether they are started.
    pub(super) start: bool,
}

/// One way from what is to what is wanted.
pub(super) struct Convergence<'a> {
    pub(super) engine: &'a Engine,
    pub(super) loaded: &'a Loaded,
    /// Those that are meant.
    pub(super) services: &'a BTreeSet<String>,
    /// Image ids.
    pub(super) images: &'a BTreeMap<String, String>,
    pub(super) existing: &'a [Existing],
    pub(super) how: &'a How,
}

/// A container as it is in the end.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) service: String,
    pub(super) record: Record,
    /// It was made, or started, just now.
    pub(super) fresh: bool,
}

/// How far each service is.
#[derive(Default)]
struct Board {
    done: Mutex<BTreeMap<String, Option<Vec<Ready>>>>,
    changed: Condvar,
}

impl Board {
    fn set(&self, service: &str, outcome: Option<Vec<Ready>>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned(), outcome);
        self.changed.notify_all();
    }

    /// Waits; `None`: it failed.
    fn wait(&self, service: &str) -> Option<Vec<Ready>> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = done.get(service) {
                return outcome.clone();
            }
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Convergence<'_> {
    /// Does it; failures are said as they come, and the containers of what went well are answered.
    pub(super) fn run(&self) -> Result<Vec<Ready>, Failure> {
        let board = Board::default();
        let chosen: Vec<&Service> =
            self.services.iter().filter_map(|name| self.loaded.project.services.get(name)).collect();
        let mut outcomes: Vec<Result<Vec<Ready>, Failure>> = Vec::new();
        std::thread::scope(|scope| {
            let board = &board;
            let one = |service: &Service| {
                let outcome = self.service(service, board);
                board.set(&service.name, outcome.as_ref().ok().cloned());
                outcome
            };
            let threads: Vec<_> =
                chosen.iter().map(|service| (*service, scope.spawn(move || one(service)))).collect();
            for (_, thread) in threads {
                outcomes.push(thread.join().unwrap_or_else(|_| Err(Failure::client("internal error"))));
            }
        });
        let mut ready = Vec::new();
        let mut failures = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(containers) => ready.extend(containers),
                Err(failure) => failures.push(failure),
            }
        }
        // The cause before those that could not go on for it.
        failures.sort_by_key(|failure| failure.message().contains("depends on"));
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Ok(ready),
            Some(first) => {
                failures.for_each(|other| other.report());
                Err(first)
            }
        }
    }

    /// The same for what a service depends on, until that is as far as it asks for.
    pub(super) fn await_for(&self, service: &Service) -> Result<(), Failure> {
        let ready = self.run()?;
        for dependency in service.depends_on.iter().filter(|need| self.services.contains(&need.service)) {
            let own: Vec<Ready> =
                ready.iter().filter(|one| one.service == dependency.service).cloned().collect();
            match self.await_condition(service, dependency, &own) {
                Err(failure) if dependency.required => return Err(failure),
                Err(failure) => session::note(format!("WARNING: {}", failure.message())),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn service(&self, service: &Service, board: &Board) -> Result<Vec<Ready>, Failure> {
        let mut restarted = false;
        for dependency in &service.depends_on {
            if !self.services.contains(&dependency.service) {
                continue;
            }
            let outcome = match board.wait(&dependency.service) {
                None => Err(Failure::client(format!(
                    "service {} depends on {}, which did not come up",
                    service.name, dependency.service
                ))),
                Some(ready) if self.how.start => {
                    self.await_condition(service, dependency, &ready).map(|()| ready)
                }
                Some(ready) => Ok(ready),
            };
            match outcome {
                // A namespace of a container that is gone leads nowhere.
                Ok(ready) => {
                    let borrowed = service.borrows.iter().any(|borrow| borrow.service == dependency.service);
                    restarted |= (dependency.restart || borrowed) && ready.iter().any(|one| one.fresh);
                }
                Err(failure) if dependency.required => return Err(failure),
                Err(failure) => session::note(format!("WARNING: {}", failure.message())),
            }
        }
        let about = |failure: Failure| failure.of(format!("service {}", service.name));
        let mut ready = Vec::new();
        for step in self.steps(service)? {
            ready.extend(self.step(service, step, restarted).map_err(about)?);
        }
        Ok(ready)
    }

    fn steps(&self, service: &Service) -> Result<Vec<Step>, Failure> {
        let own = self.existing.iter().filter(|one| one.service == service.name && !one.one_off);
        let have: Vec<Have> = own.map(Existing::have).collect();
        let want = Want {
            hash: self.loaded.project.hash(service)?,
            image: self.images.get(&service.name).cloned().unwrap_or_default(),
            scale: self.how.scale.get(&service.name).copied().unwrap_or(service.scale),
            force: self.how.force,
            keep: self.how.keep,
        };
        Ok(converge(&have, &want))
    }

    fn step(&self, service: &Service, step: Step, restarted: bool) -> Result<Option<Ready>, Failure> {
        let engine = self.engine;
        let ready =
            |record: Record, fresh: bool| Ok(Some(Ready { service: service.name.clone(), record, fresh }));
        match step {
            Step::Remove(have) => {
                self.remove(service, &have)?;
                tell("Container", &have.name, "Removed");
                Ok(None)
            }
            Step::Keep(have) => {
                let record = self.named(service, &have)?;
                if restarted && self.how.start {
                    engine.restart(&have.id, self.how.timeout)?;
                    tell("Container", record.name.as_str(), "Restarted");
                    return ready(record, true);
                }
                tell("Container", record.name.as_str(), "Running");
                ready(record, false)
            }
            Step::Start(have) => {
                let record = self.named(service, &have)?;
                let fresh = self.start(service, &record)?;
                ready(record, fresh)
            }
            Step::Create(number) => {
                let request = self.loaded.request(service, Which::Number(number), Use::Detached)?;
                let record = self.create(request)?;
                if !self.how.start {
                    tell("Container", record.name.as_str(), "Created");
                }
                self.start(service, &record)?;
                ready(record, true)
            }
            Step::Recreate(have) => {
                let record = self.recreate(service, &have)?;
                tell("Container", record.name.as_str(), "Recreated");
                self.start(service, &record)?;
                ready(record, true)
            }
        }
    }

    fn create(&self, mut request: CreateRequest) -> Result<Record, Failure> {
        // Images are there: who waits for one now would wait with a project half made.
        request.pull = PullPolicy::Never;
        let created = self.engine.create(request, &Screen::new(To::Nowhere), &mut Timing::default())?;
        created.warnings.iter().for_each(|warning| session::note(format!("WARNING: {warning}")));
        Ok(created.record)
    }

    /// Starts it, if that is wanted; whether it was not running.
    fn start(&self, service: &Service, record: &Record) -> Result<bool, Failure> {
        if !self.how.start {
            return Ok(false);
        }
        let started = self.engine.start(record, StartOptions::default(), &mut Timing::default())?;
        let Some(started) = started else { return Ok(false) };
        started.withheld.iter().for_each(|what| session::note(format!("WARNING: {what}")));
        tell("Container", record.name.as_str(), "Started");
        hooks::run(self.engine, record.id.as_str(), record.name.as_str(), &service.post_start)?;
        Ok(true)
    }

    fn remove(&self, service: &Service, have: &Have) -> Result<(), Failure> {
        halt(self.engine, &service.pre_stop, &have.id, self.how.timeout)?;
        self.engine.remove(&have.id, RemoveOptions { force: true, volumes: false })?;
        Ok(())
    }

    /// A container that stays; one that was being put in another's place gets the name.
    fn named(&self, service: &Service, have: &Have) -> Result<Record, Failure> {
        let name = self.loaded.project.container(service, have.number);
        if have.name != name {
            self.engine.rename(&have.id, &name)?;
        }
        Ok(self.engine.find(&have.id)?)
    }

    fn recreate(&self, service: &Service, have: &Have) -> Result<Record, Failure> {
        let old = self.engine.find(&have.id)?;
        let mut request = self.loaded.request(service, Which::Number(have.number), Use::Detached)?;
        let short = have.id.get(..12).unwrap_or(&have.id);
        let name = self.loaded.project.container(service, have.number);
        request.name =
            Some(Name::parse(&format!("{short}_{name}")).map_err(|e| Failure::client(e.to_string()))?);
        if !self.how.renew {
            let all = self.engine.volume_list()?;
            let nameless = all.into_iter().filter(|volume| volume.anonymous).map(|volume| volume.name);
            inherit(&mut request, &old, &nameless.collect());
        }
        let new = self.create(request)?;
        self.remove(service, have)?;
        self.engine.rename(new.id.as_str(), &name)?;
        Ok(self.engine.find(new.id.as_str())?)
    }

    fn await_condition(
        &self,
        service: &Service,
        dependency: &Dependency,
        ready: &[Ready],
    ) -> Result<(), Failure> {
        let failed = |name: &str, why: String| {
            Failure::client(format!(
                "service {} depends on {}: {name} {why}",
                service.name, dependency.service
            ))
        };
        for one in ready {
            let name = one.record.name.as_str();
            match dependency.condition {
                Condition::Started => {}
                Condition::Healthy => {
                    await_health(self.engine, &one.record, true).map_err(|why| failed(name, why))?;
                    tell("Container", name, "Healthy");
                }
                Condition::Completed => {
                    match self.engine.wait(one.record.id.as_str(), Until::NotRunning)?.code {
                        0 => tell("Container", name, "Exited"),
                        code => return Err(failed(name, format!("exited ({code})"))),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Waits until a container is healthy or, if it has no check and none is `needed`, runs.
pub(super) fn await_health(engine: &Engine, record: &Record, needed: bool) -> Result<(), String> {
    loop {
        let view = engine.present(record).map_err(|error| error.to_string())?;
        let status = view.status;
        if matches!(status.status, StatusKind::Exited | StatusKind::Created) {
            return Err(format!("exited ({})", status.exit_code));
        }
        match status.health.map(|health| health.status) {
            Some(HealthStatus::Healthy) => return Ok(()),
            Some(HealthStatus::Unhealthy) => return Err("is unhealthy".to_owned()),
            Some(HealthStatus::Starting) => {}
            None if !needed => return Ok(()),
            None if status.status == StatusKind::Running => return Err("has no health check".to_owned()),
            None => {}
        }
        std::thread::sleep(LOOK);
    }
}

/// PURE: volumes that nobody named are the new container's, where it wants one.
fn inherit(request: &mut CreateRequest, old: &Record, nameless: &BTreeSet<Name>) {
    for mount in &old.mounts {
        let MountKind::Volume { name, .. } = &mount.kind else { continue };
        if !nameless.contains(name) {
            continue;
        }
        let source = || MountSource::Volume { name: Some(name.clone()), subpath: None, no_copy: true };
        match request.mounts.iter_mut().find(|wanted| wanted.target == mount.target) {
            Some(MountRequest { source: place @ MountSource::Volume { name: None, .. }, .. }) => {
                *place = source();
            }
            Some(_) => {}
            None => request.mounts.push(MountRequest {
                source: source(),
                target: mount.target.clone(),
                read_only: mount.read_only,
            }),
        }
    }
}
