//! `attach`, `cp`, `events`, `push`, `scale`, `stats`, `wait`: what there is for containers and images, by the names
//! of services.

use std::collections::BTreeSet;

use cata_compose::graph;
use cata_compose::words::PROJECT;
use cata_engine::Until;
use clap::Args;

use super::converge::How;
use super::existing::{self, Existing};
use super::project::load;
use super::up::{Making, scale};
use crate::command::{container, image, system};
use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb, typed};

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that detach from a container with a terminal (ctrl-p,ctrl-q)
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Which container of the service
    #[arg(long, value_name = "int")]
    index: Option<u32>,
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process (true)
    #[arg(long, value_name = "bool", require_equals = true)]
    sig_proxy: Option<String>,
    #[arg(required = true, value_name = "SERVICE")]
    service: String,
}

impl Verb for Attach {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, std::slice::from_ref(&self.service))?;
        let one = existing::one(session.engine()?, &loaded, &self.service, self.index)?;
        let mut line: Vec<String> = Vec::new();
        line.extend(self.detach_keys.map(|keys| format!("--detach-keys={keys}")));
        line.extend(self.no_stdin.then(|| "--no-stdin".to_owned()));
        line.extend(self.sig_proxy.map(|value| format!("--sig-proxy={value}")));
        line.push(one.name().to_owned());
        typed::<container::attach::Attach>(&container::ATTACH, line)?.call(session)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// To all containers of the service, those of `run` too
    #[arg(long)]
    all: bool,
    /// Keep owners, setuid bits and device nodes
    #[arg(short, long)]
    archive: bool,
    /// Follow a link at the end of the source path
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which container of the service
    #[arg(long, value_name = "int")]
    index: Option<u32>,
    #[arg(required = true, value_name = "SOURCE")]
    source: String,
    #[arg(required = true, value_name = "DESTINATION")]
    destination: String,
}

/// PURE: `SERVICE:PATH`, as `cp` has it for containers.
fn place(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(name, _)| !name.is_empty() && !name.starts_with(['.', '/']))
}

impl Verb for Cp {
    fn call(self, session: &Session) -> Outcome {
        let (source, destination) = (place(&self.source), place(&self.destination));
        let (service, path, inward) = match (source, destination) {
            (Some((service, path)), None) => (service, path, false),
            (None, Some((service, path))) => (service, path, true),
            (Some(_), Some(_)) => return Err(Failure::usage("copying between services is not supported")),
            (None, None) => return Err(Failure::usage("one of the two must be SERVICE:PATH")),
        };
        let loaded = load(session, &[service.to_owned()])?;
        let engine = session.engine()?;
        loaded.service(service)?;
        // As for `cata cp`, they need not run.
        let mut found = existing::all(engine, &loaded.project.name)?;
        found.retain(|one| {
            one.service == service
                && (self.all || !one.one_off)
                && self.index.is_none_or(|index| one.number == index)
        });
        if found.is_empty() {
            let text = format!("service {service} has no such container");
            return Err(Failure::client(text).with_hint("cata compose create"));
        }
        if !inward {
            found.truncate(1);
        }
        for one in found {
            let mut line: Vec<String> = Vec::new();
            line.extend(self.archive.then(|| "--archive".to_owned()));
            line.extend(self.follow_link.then(|| "--follow-link".to_owned()));
            let there = format!("{}:{path}", one.name());
            line.push("--".to_owned());
            if inward {
                line.extend([self.source.clone(), there]);
            } else {
                line.extend([there, self.destination.clone()]);
            }
            let exit = typed::<container::cp::Cp>(&container::CP, line)?.call(session)?;
            if exit != Exit::OK {
                return Ok(exit);
            }
        }
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Begin with what has happened since (2006-01-02T15:04:05Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// End at this moment (as for --since)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Events {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let label = |key: &str, value: &str| format!("--filter=label={key}={value}");
        let mut line = vec!["--filter=type=container".to_owned(), label(PROJECT, &loaded.project.name)];
        for name in &self.services {
            // By name: labels that are all asked for must all be there.
            let service = loaded.service(name)?;
            let own = (1..=service.scale.max(1)).map(|number| loaded.project.container(service, number));
            line.extend(own.map(|container| format!("--filter=container={container}")));
        }
        line.extend(self.json.then(|| "--format=json".to_owned()));
        line.extend(self.since.map(|text| format!("--since={text}")));
        line.extend(self.until.map(|text| format!("--until={text}")));
        typed::<system::events::Events>(&system::EVENTS, line)?.call(session)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Push the images of the services that the named ones depend on too
    #[arg(long)]
    include_deps: bool,
    /// Go on with the next image when one cannot be pushed
    #[arg(long)]
    ignore_push_failures: bool,
    /// Print only what went wrong
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Push {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let chosen = graph::chosen(&loaded.project.services, &self.services, !self.include_deps)?;
        let services = chosen.iter().filter_map(|name| loaded.project.services.get(name));
        // What is built here; the others came from where they would go.
        let own = services.filter(|service| service.build.is_some() && service.image.is_some());
        let images: BTreeSet<String> = own.map(|service| loaded.project.image(service)).collect();
        for name in images {
            let mut line: Vec<String> = self.quiet.then(|| "--quiet".to_owned()).into_iter().collect();
            line.push(name);
            match typed::<image::push::Push>(&image::PUSH, line)?.call(session) {
                Err(failure) if self.ignore_push_failures => failure.report(),
                outcome => drop(outcome?),
            }
        }
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Do not start the services that the named ones depend on
    #[arg(long)]
    no_deps: bool,
    #[arg(required = true, value_name = "SERVICE=NUMBER", value_parser = scale)]
    services: Vec<(String, u32)>,
}

impl Verb for Scale {
    fn call(self, session: &Session) -> Outcome {
        let names: Vec<String> = self.services.iter().map(|(name, _)| name.clone()).collect();
        let loaded = load(session, &names)?;
        let chosen = graph::chosen(&loaded.project.services, &names, self.no_deps)?;
        let how = How { scale: self.services.into_iter().collect(), start: true, ..How::default() };
        let _ = Making::default().make(session, &loaded, &chosen, &how)?;
        Ok(Exit::OK)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    shown: container::stats::Shown,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Stats {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let mut found = existing::of(session.engine()?, &loaded, &self.services)?;
        found.retain(|one| self.shown.all || one.runs());
        if found.is_empty() {
            let text = format!("no container of {} runs", loaded.project.name);
            return Err(Failure::client(text).with_hint("cata compose up -d"));
        }
        let names = found.iter().map(|one| one.name().to_owned()).collect();
        container::stats::Stats::of(names, self.shown).call(session)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Remove the project's containers and networks when the first one has ended
    #[arg(long)]
    down_project: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Verb for Wait {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.services)?;
        let engine = session.engine()?;
        let mut found = existing::of(engine, &loaded, &self.services)?;
        found.retain(Existing::runs);
        if found.is_empty() {
            return Err(Failure::client("no containers of these services run"));
        }
        let (sender, ends) = std::sync::mpsc::channel();
        let code = std::thread::scope(|scope| {
            for one in &found {
                let sender = sender.clone();
                scope.spawn(move || {
                    let code = engine.wait(one.id(), Until::NotRunning).map_or(137, |exit| exit.code);
                    // Nobody listens once the first has been heard of.
                    let _ = sender.send((one.name().to_owned(), code));
                });
            }
            drop(sender);
            let mut last = 0;
            while let Ok((name, code)) = ends.recv() {
                session::note(format!("container {name} exited with code {code}"));
                last = code;
                if self.down_project {
                    break;
                }
            }
            if self.down_project {
                super::down::all(session, &loaded)?;
            }
            Ok::<i32, Failure>(last)
        })?;
        Ok(Exit(u8::try_from(code).unwrap_or(1)))
    }
}
