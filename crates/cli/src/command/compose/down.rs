//! `down`: what `up` has made goes away again, dependents first.

use cata_compose::words::{NETWORK, PROJECT};
use cata_engine::Engine;
use cata_engine::container::RemoveOptions;
use cata_engine::record::MountKind;
use clap::{Args, ValueEnum};

use super::existing::{self, Existing};
use super::life;
use super::project::{Loaded, load};
use super::resources::tell;
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Remove the project's volumes too, and those without a name
    #[arg(short, long)]
    volumes: bool,
    /// Remove containers of services that the files do not have any more
    #[arg(long)]
    remove_orphans: bool,
    /// Remove images: all, or local ones (without a name of their own)
    #[arg(long, value_name = "string")]
    rmi: Option<Rmi>,
    /// Seconds to wait for a stop before a container is killed
    #[arg(short, long, value_name = "int")]
    timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// `--rmi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rmi {
    All,
    Local,
}

/// Containers of services that no file has.
pub(super) fn orphans(loaded: &Loaded, existing: &[Existing]) -> Vec<Existing> {
    let project = &loaded.project;
    let known = |name: &str| project.services.contains_key(name) || project.disabled.contains_key(name);
    existing.iter().filter(|one| !known(&one.service) && !one.one_off).cloned().collect()
}

/// Stops and removes containers, all at once.
pub(super) fn remove(
    engine: &Engine,
    loaded: &Loaded,
    all: &[Existing],
    timeout: Option<i64>,
    volumes: bool,
) -> Result<(), Failure> {
    life::at_once(all, &|one| {
        life::halt(engine, loaded.before_stop(&one.service), one.id(), timeout)?;
        engine.remove(one.id(), RemoveOptions { force: true, volumes })?;
        tell("Container", one.name(), "Removed");
        Ok(())
    })
}

impl Verb for Down {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        self.bring(session, &loaded)
    }
}

/// All of the project, but for its volumes.
pub(super) fn all(session: &Session, loaded: &Loaded) -> Result<(), Failure> {
    let down = Down { volumes: false, remove_orphans: false, rmi: None, timeout: None, services: Vec::new() };
    down.bring(session, loaded).map(|_| ())
}

impl Down {
    fn bring(&self, session: &Session, loaded: &Loaded) -> Outcome {
        let engine = session.engine()?;
        let mut all = existing::all(engine, &loaded.project.name)?;
        let orphans = orphans(loaded, &all);
        let meant = |one: &Existing| {
            let orphan = orphans.iter().any(|other| other.id() == one.id());
            let named = self.services.is_empty() || self.services.contains(&one.service);
            if orphan { self.remove_orphans && self.services.is_empty() } else { named }
        };
        all.retain(meant);
        life::in_order(loaded, &all, true, &|one| {
            remove(engine, loaded, std::slice::from_ref(one), self.timeout, self.volumes)
        })?;
        if self.volumes {
            anonymous(engine, &all)?;
        }
        if self.services.is_empty() {
            networks(engine, loaded)?;
            if self.volumes {
                volumes(engine, loaded)?;
            }
        }
        if let Some(which) = self.rmi {
            images(engine, loaded, which, &self.services)?;
        }
        Ok(Exit::OK)
    }
}

/// Volumes without a name that one container has had from another.
fn anonymous(engine: &Engine, removed: &[Existing]) -> Result<(), Failure> {
    let all = engine.volume_list()?;
    for mount in removed.iter().flat_map(|one| &one.view.record.mounts) {
        let MountKind::Volume { name, .. } = &mount.kind else { continue };
        if all.iter().any(|volume| volume.anonymous && volume.name == *name) {
            missing_is_fine(engine.volume_remove(name.as_str(), false))?;
        }
    }
    Ok(())
}

fn missing_is_fine<T>(outcome: cata_engine::Result<T>) -> Result<bool, Failure> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == cata_engine::Kind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The project's networks, by their labels: also those that the files do not have any more.
fn networks(engine: &Engine, loaded: &Loaded) -> Result<(), Failure> {
    for network in engine.network_list()? {
        let label =
            |key: &str| network.labels.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
        if label(PROJECT) != Some(&loaded.project.name) || label(NETWORK).is_none() {
            continue;
        }
        match engine.network_remove(network.name.as_str()) {
            Ok(_) => tell("Network", network.name.as_str(), "Removed"),
            Err(error) if error.kind() == cata_engine::Kind::NotFound => {}
            // Somebody else's containers are on it: what is ours is gone.
            Err(error) => session::note(format!("WARNING: {error}")),
        }
    }
    Ok(())
}

fn volumes(engine: &Engine, loaded: &Loaded) -> Result<(), Failure> {
    for volume in loaded.project.volumes.values().filter(|volume| !volume.external) {
        if missing_is_fine(engine.volume_remove(&volume.name, false))? {
            tell("Volume", &volume.name, "Removed");
        }
    }
    Ok(())
}

fn images(engine: &Engine, loaded: &Loaded, which: Rmi, named: &[String]) -> Result<(), Failure> {
    let services = loaded.project.services.values();
    for service in services.filter(|service| named.is_empty() || named.contains(&service.name)) {
        if which == Rmi::Local && service.image.is_some() {
            continue;
        }
        let image = loaded.project.image(service);
        if missing_is_fine(engine.image_remove(&image, cata_engine::images::RemoveOptions::default()))? {
            tell("Image", &image, "Removed");
        }
    }
    Ok(())
}
