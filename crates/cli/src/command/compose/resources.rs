//! Networks, volumes and images of a project: made before its containers are.

use std::collections::{BTreeMap, BTreeSet};

use cata_compose::supply::Supply;
use cata_compose::words::{NETWORK, PROJECT, VOLUME};
use cata_compose::{Pull, Service};
use cata_engine::Engine;
use cata_engine::request::CreateNetwork;
use cata_spec::Name;

use super::project::Loaded;
use crate::command::build;
use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::session::{self, Session};

/// What is said of each thing that is done.
pub(super) fn tell(kind: &str, name: &str, what: &str) {
    session::note(format!(" {kind} {name}  {what}"));
}

fn name(text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|e| Failure::client(e.to_string()))
}

fn labelled(
    mut labels: BTreeMap<String, String>,
    project: &str,
    key: &str,
    of: &str,
) -> BTreeMap<String, String> {
    labels.insert(PROJECT.to_owned(), project.to_owned());
    labels.insert(of.to_owned(), key.to_owned());
    labels
}

/// Makes what is not there of what services use.
pub(super) fn make(engine: &Engine, loaded: &Loaded, services: &BTreeSet<String>) -> Result<(), Failure> {
    let project = &loaded.project;
    let used: BTreeSet<&str> = services
        .iter()
        .filter_map(|name| project.services.get(name))
        .filter_map(|service| match &service.network {
            cata_compose::service::Network::Networks(list) => Some(list),
            _ => None,
        })
        .flatten()
        .map(|attachment| attachment.network.as_str())
        .collect();
    for (key, network) in project.networks.iter().filter(|(key, _)| used.contains(key.as_str())) {
        match engine.network(&network.name) {
            Ok(_) => continue,
            Err(error) if error.kind() != cata_engine::Kind::NotFound => return Err(error.into()),
            Err(_) if network.external => {
                let hint = format!("cata network create {}", network.name);
                let text = format!("network {} is declared as external, but it is not there", network.name);
                return Err(Failure::client(text).with_hint(hint));
            }
            Err(_) => {}
        }
        engine.network_create(&CreateNetwork {
            name: name(&network.name)?,
            driver: network.driver.clone().unwrap_or_else(|| "bridge".to_owned()),
            subnets: network.subnets.clone(),
            gateways: network.gateways.clone(),
            ip_ranges: network.ranges.clone(),
            internal: network.internal,
            ipv6: network.ipv6,
            labels: labelled(network.labels.clone(), &project.name, key, NETWORK).into_iter().collect(),
            options: network.options.clone().into_iter().collect(),
        })?;
        tell("Network", &network.name, "Created");
    }
    volumes(engine, loaded, services)
}

fn volumes(engine: &Engine, loaded: &Loaded, services: &BTreeSet<String>) -> Result<(), Failure> {
    let project = &loaded.project;
    let mounts =
        services.iter().filter_map(|name| project.services.get(name)).flat_map(|service| &service.mounts);
    let used: BTreeSet<&str> = mounts
        .filter_map(|mount| match &mount.source {
            cata_compose::mount::Source::Volume(key) => Some(key.as_str()),
            _ => None,
        })
        .collect();
    let there: BTreeSet<String> =
        engine.volume_list()?.iter().map(|volume| volume.name.to_string()).collect();
    for (key, volume) in project.volumes.iter().filter(|(key, _)| used.contains(key.as_str())) {
        if there.contains(&volume.name) {
            continue;
        }
        if volume.external {
            let text = format!("volume {} is declared as external, but it is not there", volume.name);
            return Err(Failure::client(text).with_hint(format!("cata volume create {}", volume.name)));
        }
        let labels = labelled(volume.labels.clone(), &project.name, key, VOLUME);
        engine.volume_create(Some(name(&volume.name)?), labels, volume.options.clone())?;
        tell("Volume", &volume.name, "Created");
    }
    Ok(())
}

/// How images are come by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Images {
    /// `--build`.
    pub(super) build: bool,
    /// `--no-build`.
    pub(super) no_build: bool,
    /// `--pull`.
    pub(super) pull: Option<cata_engine::request::PullPolicy>,
    /// `-q`.
    pub(super) quiet: bool,
}

/// Pulls what is missing, all at once, and builds what is to be built; answers the image's id of each service.
pub(super) fn images(
    session: &Session,
    loaded: &Loaded,
    services: &BTreeSet<String>,
    how: Images,
) -> Result<BTreeMap<String, String>, Failure> {
    let engine = session.engine()?;
    let chosen: Vec<&Service> =
        services.iter().filter_map(|name| loaded.project.services.get(name)).collect();
    let mut wanted: BTreeSet<Wanted> = BTreeSet::new();
    for service in &chosen {
        let image = loaded.project.image(service);
        let platform = service.platform();
        let there = engine.image_of(&image, platform).is_ok();
        if service.build.is_some() && (how.build || service.pull == Pull::Build || !there) {
            if how.no_build {
                let text = format!("service {} has to be built, and --no-build was given", service.name);
                return Err(Failure::client(text));
            }
            build(session, loaded, service, &[])?;
        } else if pulled(service, how, there) {
            wanted.insert((image, platform.map(str::to_owned)));
        } else if !there {
            return Err(Failure::client(format!("service {}: the image {image} is not there", service.name))
                .with_hint("it is not to be pulled: pull_policy, or --pull, is never"));
        }
    }
    pull(engine, &wanted.into_iter().collect::<Vec<_>>(), how.quiet)?;
    let mut ids = BTreeMap::new();
    for service in chosen {
        let image = engine.image_of(&loaded.project.image(service), service.platform())?;
        ids.insert(service.name.clone(), image.id.to_string());
    }
    Ok(ids)
}

/// PURE: whether a service's image is to be pulled.
fn pulled(service: &Service, how: Images, there: bool) -> bool {
    use cata_engine::request::PullPolicy;
    match (how.pull, service.pull) {
        (Some(PullPolicy::Always), _) | (None, Pull::Always) => service.build.is_none(),
        (Some(PullPolicy::Never), _) | (None, Pull::Never) => false,
        (Some(PullPolicy::Missing), _) | (None, Pull::Missing | Pull::Build) => !there,
    }
}

/// An image and, if that is asked for, its platform.
pub(super) type Wanted = (String, Option<String>);

/// Pulls images, all at once.
pub(super) fn pull(engine: &Engine, images: &[Wanted], quiet: bool) -> Result<(), Failure> {
    let screen = Screen::new(if quiet { To::Nowhere } else { To::Stderr });
    let outcomes: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let screen = &screen;
        let one = |(image, platform): &Wanted| {
            engine
                .image_pull(image, platform.as_deref(), screen)
                .map_err(|e| Failure::from(e).of(format!("image {image}")))?;
            tell("Image", image, "Pulled");
            Ok(())
        };
        let threads: Vec<_> = images.iter().map(|image| scope.spawn(move || one(image))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), Failure>>| {
            thread.join().unwrap_or_else(|_| Err(Failure::client("internal error")))
        };
        threads.into_iter().map(join).collect()
    });
    outcomes.into_iter().collect()
}

/// Builds the image of a service.
pub(super) fn build(
    session: &Session,
    loaded: &Loaded,
    service: &Service,
    more: &[String],
) -> Result<(), Failure> {
    let Some(build) = &service.build else { return Ok(()) };
    let image = loaded.project.image(service);
    let mut words = vec![format!("--tag={image}")];
    words.extend(build.flags.iter().cloned());
    for (key, called) in &build.secrets {
        let source = match loaded.project.secrets.get(key) {
            Some(Supply::File(path)) => format!("src={}", path.display()),
            Some(Supply::Variable(variable, _)) => format!("env={variable}"),
            _ => return Err(Failure::client(format!("service {}: no such secret: {key}", service.name))),
        };
        words.push(format!("--secret=id={called},{source}"));
    }
    words.extend_from_slice(more);
    words.push(build.context.clone());
    build::perform(session, words, build.inline.clone())
        .map_err(|failure| failure.of(format!("service {}", service.name)))?;
    tell("Image", &image, "Built");
    Ok(())
}
