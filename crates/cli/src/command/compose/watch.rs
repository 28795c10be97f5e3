//! `watch`: files that change go into containers, or containers are made anew, as `develop.watch` says.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_compose::develop::{Action, Watch as Rule};
use cata_compose::{Service, graph};
use cata_engine::Engine;
use cata_engine::container::exec::ExecOptions;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::converge::How;
use super::existing::{self, Existing};
use super::project::{Loaded, load};
use super::resources::tell;
use super::up::Making;
use super::{hooks, resources};
use crate::command::container::cp;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Outcome, Verb};

/// So long nothing more may change until something is done about what has: editors write a file more than once.
const QUIET: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Do not build and start the services first
    #[arg(long)]
    no_up: bool,
    /// Say nothing of what is done
    #[arg(long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Watch {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let chosen = graph::chosen(&loaded.project.services, &self.services, true)?;
        let watched: Vec<&Service> = chosen
            .iter()
            .filter_map(|name| loaded.project.services.get(name))
            .filter(|service| !service.watch.is_empty())
            .collect();
        if watched.is_empty() {
            return Err(Failure::client("none of these services has a develop.watch"));
        }
        // Before the first look at them: what changes from here on is seen.
        let mut eyes = Eyes::new()?;
        for rule in watched.iter().flat_map(|service| &service.watch) {
            eyes.open(&rule.path, rule)?;
        }
        if !self.no_up {
            let needed = graph::chosen(&loaded.project.services, &self.services, false)?;
            bring_up(session, &loaded, &needed)?;
        }
        for (service, rule) in all(&watched).filter(|(_, rule)| rule.initial) {
            self.act(session, &loaded, service, rule, &files(&rule.path, rule))?;
        }
        session::note("Watch enabled");
        loop {
            let changed = eyes.changes()?;
            // Before what is in new directories is looked at: what comes later is told.
            for rule in watched.iter().flat_map(|service| &service.watch) {
                for path in changed.iter().filter(|path| path.is_dir() && path.starts_with(&rule.path)) {
                    eyes.open(path, rule)?;
                }
            }
            for (service, rule) in all(&watched) {
                let mut own: BTreeSet<PathBuf> = changed
                    .iter()
                    .filter(|path| path.starts_with(&rule.path))
                    .flat_map(|path| if path.is_dir() { files(path, rule) } else { [path.clone()].into() })
                    .collect();
                own.retain(|path| path.strip_prefix(&rule.path).is_ok_and(|below| rule.counts(below)));
                if own.is_empty() {
                    continue;
                }
                // One that failed is said, and does not end the watching.
                if let Err(failure) = self.act(session, &loaded, service, rule, &own) {
                    failure.report();
                }
            }
        }
    }
}

fn all<'a>(watched: &'a [&'a Service]) -> impl Iterator<Item = (&'a Service, &'a Rule)> {
    watched.iter().flat_map(|service| service.watch.iter().map(|rule| (*service, rule)))
}

fn bring_up(session: &Session, loaded: &Loaded, chosen: &BTreeSet<String>) -> Result<(), Failure> {
    let how = How { start: true, ..How::default() };
    Making::default().make(session, loaded, chosen, &how).map(|_| ())
}

impl Watch {
    fn act(
        &self,
        session: &Session,
        loaded: &Loaded,
        service: &Service,
        rule: &Rule,
        changed: &BTreeSet<PathBuf>,
    ) -> Result<(), Failure> {
        let engine = session.engine()?;
        if rule.action == Action::Rebuild {
            self.say(&service.name, "Rebuilding");
            resources::build(session, loaded, service, &[])?;
            return bring_up(session, loaded, &BTreeSet::from([service.name.clone()]));
        }
        let mut found = existing::of(engine, loaded, std::slice::from_ref(&service.name))?;
        found.retain(Existing::runs);
        for one in &found {
            if rule.action != Action::Restart {
                changed.iter().try_for_each(|path| sync(engine, one, rule, path))?;
                self.say(one.name(), &format!("Synced {}", counted(changed.len())));
            }
            match &rule.action {
                Action::SyncRestart | Action::Restart => {
                    engine.restart(one.id(), None)?;
                    self.say(one.name(), "Restarted");
                }
                Action::SyncExec(list) => hooks::run(engine, one.id(), one.name(), list)?,
                Action::Sync | Action::Rebuild => {}
            }
        }
        Ok(())
    }

    fn say(&self, name: &str, what: &str) {
        if !self.quiet {
            tell("Service", name, what);
        }
    }
}

fn counted(number: usize) -> String {
    if number == 1 { "1 file".to_owned() } else { format!("{number} files") }
}

/// One path as it is now: what is gone here goes there.
fn sync(engine: &Engine, one: &Existing, rule: &Rule, path: &Path) -> Result<(), Failure> {
    let target = rule.inside(path.strip_prefix(&rule.path).unwrap_or(Path::new("")));
    if path.symlink_metadata().is_ok() {
        return cp::put(engine, path, one.id(), &target);
    }
    let argv = ["rm", "-rf", "--"].map(str::to_owned).into_iter();
    let argv = argv.chain([target.to_string_lossy().into_owned()]).collect();
    let options = ExecOptions { argv, user: Some("0".to_owned()), ..ExecOptions::default() };
    engine.exec(one.id(), options, [None, None, None])?.finish()?;
    Ok(())
}

/// All files at a path or beneath it that a rule counts.
fn files(path: &Path, rule: &Rule) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let below = path.strip_prefix(&rule.path).unwrap_or(&path);
        if !below.as_os_str().is_empty() && rule.ignores(below) {
            continue;
        }
        match std::fs::read_dir(&path) {
            Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => drop(found.insert(path)),
        }
    }
    found
}

/// What is watched: an inotify instance, and which directory or file each of its numbers is.
struct Eyes {
    fd: std::os::fd::OwnedFd,
    places: BTreeMap<i32, PathBuf>,
}

impl Eyes {
    fn new() -> Result<Self, Failure> {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).map_err(|e| Failure::io("watch files", &e.into()))?;
        Ok(Self { fd, places: BTreeMap::new() })
    }

    /// Watches a path, with all directories in it that the rule does not ignore. One that is not there is not
    /// watched, one that goes meanwhile neither.
    fn open(&mut self, path: &Path, rule: &Rule) -> Result<(), Failure> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB;
        // A file by its directory: editors put another in its place.
        let alone = path == rule.path && !path.is_dir();
        let mut open = vec![if alone { path.parent().unwrap_or(path).to_owned() } else { path.to_owned() }];
        while let Some(path) = open.pop() {
            let below = path.strip_prefix(&rule.path).unwrap_or(Path::new(""));
            if !below.as_os_str().is_empty() && rule.ignores(below) {
                continue;
            }
            match inotify::add_watch(&self.fd, &path, flags) {
                Ok(number) => drop(self.places.insert(number, path.clone())),
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(Failure::io(format!("watch {}", path.display()), &errno.into())),
            }
            if alone {
                break;
            }
            // After the directory itself: what is made in it from now on is told.
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Waits for changes, then until there is quiet.
    fn changes(&mut self) -> Result<BTreeSet<PathBuf>, Failure> {
        let failed = |errno: rustix::io::Errno| Failure::io("watch files", &errno.into());
        let mut changed = BTreeSet::new();
        loop {
            let quiet = Timespec { tv_sec: 0, tv_nsec: i64::from(QUIET.subsec_nanos()) };
            let timeout = (!changed.is_empty()).then_some(&quiet);
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(changed),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno)),
            }
            let mut buffer = [std::mem::MaybeUninit::uninit(); 64 * 1024];
            let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(errno) => return Err(failed(errno)),
                };
                if event.events().contains(ReadFlags::IGNORED) {
                    self.places.remove(&event.wd());
                } else if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    changed.extend(self.places.values().cloned());
                } else if let Some(place) = self.places.get(&event.wd()) {
                    let name = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()));
                    changed.insert(name.map_or_else(|| place.clone(), |name| place.join(name)));
                }
            }
        }
    }
}
