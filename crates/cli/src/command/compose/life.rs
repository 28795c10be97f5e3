//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`: containers that are there.

use cata_compose::graph;
use cata_compose::hook::Hook;
use cata_engine::container::{RemoveOptions, StartOptions};
use cata_engine::status::StatusKind;
use cata_engine::{Engine, Kind, Timing};
use clap::Args;

use super::existing::{self, Existing};
use super::hooks;
use super::project::{Loaded, load};
use super::resources::tell;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

/// Does something to containers, all at once; the first failure is answered, the others are said.
pub(super) fn at_once(
    all: &[Existing],
    act: &(dyn Fn(&Existing) -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let outcomes: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|one| scope.spawn(move || act(one))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(Failure::client("internal error"))))
            .collect()
    });
    let mut failures = outcomes.into_iter().filter_map(Result::err);
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|failure| failure.report());
    Err(first)
}

/// Stops a container, after what is to be run in it before; one that has no process, and so cannot be stopped, is
/// as it should be.
pub(super) fn halt(engine: &Engine, hooks: &[Hook], id: &str, timeout: Option<i64>) -> Result<(), Failure> {
    if !hooks.is_empty() {
        let record = engine.find(id)?;
        if engine.is_running(&record)?
            && let Err(failure) = hooks::run(engine, id, record.name.as_str(), hooks)
        {
            // It is to go, whatever becomes of them.
            session::note(format!("WARNING: {}", failure.message()));
        }
    }
    match engine.stop(id, None, timeout) {
        Err(error) if error.kind() != Kind::InvalidState => Err(error.into()),
        _ => Ok(()),
    }
}

/// As [`at_once`], in the order of dependencies, or against it; those of no service come first.
pub(super) fn in_order(
    loaded: &Loaded,
    all: &[Existing],
    reverse: bool,
    act: &(dyn Fn(&Existing) -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let mut groups = graph::order(&loaded.project.services)?;
    if reverse {
        groups.reverse();
    }
    let pick = |wanted: &dyn Fn(&Existing) -> bool| {
        all.iter().filter(|one| wanted(one)).cloned().collect::<Vec<_>>()
    };
    at_once(&pick(&|one| one.one_off || !loaded.project.services.contains_key(&one.service)), act)?;
    for group in groups {
        at_once(&pick(&|one| !one.one_off && group.contains(&one.service)), act)?;
    }
    Ok(())
}

/// The containers of the named services, of all if none is named.
fn containers(session: &Session, services: &[String]) -> Result<(Loaded, Vec<Existing>), Failure> {
    let loaded = load(session, services)?;
    let found = existing::of(session.engine()?, &loaded, services)?;
    Ok((loaded, found))
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Start {
    fn call(self, session: &Session) -> Outcome {
        let (loaded, found) = containers(session, &self.services)?;
        if found.is_empty() {
            return Err(Failure::client("there are no containers to start").with_hint("cata compose up -d"));
        }
        let engine = session.engine()?;
        in_order(&loaded, &found, false, &|one| {
            let started = engine.start(&one.view.record, StartOptions::default(), &mut Timing::default())?;
            if let Some(started) = started {
                started.withheld.iter().for_each(|what| session::note(format!("WARNING: {what}")));
                tell("Container", one.name(), "Started");
            }
            Ok(())
        })?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait before containers are killed
    #[arg(short, long, value_name = "int")]
    timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Stop {
    fn call(self, session: &Session) -> Outcome {
        let (loaded, mut found) = containers(session, &self.services)?;
        found.retain(Existing::runs);
        let engine = session.engine()?;
        in_order(&loaded, &found, true, &|one| {
            halt(engine, loaded.before_stop(&one.service), one.id(), self.timeout)?;
            tell("Container", one.name(), "Stopped");
            Ok(())
        })?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Seconds to wait before containers are killed
    #[arg(short, long, value_name = "int")]
    timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Restart {
    fn call(self, session: &Session) -> Outcome {
        let (loaded, found) = containers(session, &self.services)?;
        let engine = session.engine()?;
        in_order(&loaded, &found, false, &|one| {
            engine.restart(one.id(), self.timeout)?;
            tell("Container", one.name(), "Restarted");
            Ok(())
        })?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send instead of KILL
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Kill {
    fn call(self, session: &Session) -> Outcome {
        let signal = self.signal.as_deref();
        each(session, &self.services, Existing::runs, "Killed", |engine, id| engine.kill(id, signal))
    }
}

/// Does one thing to those containers that are `fit` for it.
fn each(
    session: &Session,
    services: &[String],
    fit: impl Fn(&Existing) -> bool,
    done: &str,
    act: impl Fn(&Engine, &str) -> cata_engine::Result<()> + Sync,
) -> Outcome {
    let (_, mut found) = containers(session, services)?;
    found.retain(fit);
    let engine = session.engine()?;
    at_once(&found, &|one| {
        act(engine, one.id())?;
        tell("Container", one.name(), done);
        Ok(())
    })?;
    Ok(Exit::OK)
}

fn is(kind: StatusKind) -> impl Fn(&Existing) -> bool {
    move |one| one.view.status.status == kind
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Pause {
    fn call(self, session: &Session) -> Outcome {
        each(session, &self.services, is(StatusKind::Running), "Paused", Engine::pause)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Unpause {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Unpause {
    fn call(self, session: &Session) -> Outcome {
        each(session, &self.services, is(StatusKind::Paused), "Unpaused", Engine::unpause)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Do not ask (nothing is asked)
    #[arg(short, long)]
    force: bool,
    /// Stop them first
    #[arg(short, long)]
    stop: bool,
    /// Remove their volumes without names too
    #[arg(short, long)]
    volumes: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Remove {
    fn call(self, session: &Session) -> Outcome {
        let _ = self.force;
        let (loaded, mut found) = containers(session, &self.services)?;
        let engine = session.engine()?;
        if !self.stop {
            found.retain(|one| !one.runs());
        }
        in_order(&loaded, &found, true, &|one| {
            halt(engine, loaded.before_stop(&one.service), one.id(), None)?;
            engine.remove(one.id(), RemoveOptions { force: false, volumes: self.volumes })?;
            tell("Container", one.name(), "Removed");
            Ok(())
        })?;
        Ok(Exit::OK)
    }
}
