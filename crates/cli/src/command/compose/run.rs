//! `run`: a container of a service for one command, which goes as it came.

use cata_compose::{Which, graph};
use cata_engine::Timing;
use clap::Args;

use super::converge::{Convergence, How};
use super::exec::has_terminal;
use super::existing;
use super::project::load;
use super::resources::{self, Images};
use crate::command::container::create::CidFile;
use crate::command::container::run::{Going, go};
use crate::options::convert::Use;
use crate::session::Session;
use crate::terminal::detach::Keys;
use crate::tree::{Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// Leave the container running in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Override the image's entry point
    #[arg(long, value_name = "string")]
    entrypoint: Option<String>,
    /// Set an environment variable (NAME alone takes the caller's)
    #[arg(short, long, value_name = "list")]
    env: Vec<String>,
    /// Connect standard input (it is, unless --detach)
    #[arg(short, long)]
    interactive: bool,
    /// Set a label
    #[arg(short, long, value_name = "list")]
    label: Vec<String>,
    /// Give the container a name
    #[arg(long, value_name = "string")]
    name: Option<String>,
    /// Do not start the services that this one depends on
    #[arg(long)]
    no_deps: bool,
    /// Without a terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    /// Publish a port on the host
    #[arg(short, long, value_name = "list")]
    publish: Vec<String>,
    /// Remove the container when it exits
    #[arg(long)]
    rm: bool,
    /// Publish the service's ports
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// Answer to the service's name on its networks
    #[arg(long)]
    use_aliases: bool,
    /// User or uid, with an optional group (user[:group])
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Mount a host path or a volume
    #[arg(short, long, value_name = "list")]
    volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    // Everything after the service belongs to the command, dashes or not.
    #[arg(required = true, trailing_var_arg = true, value_name = "SERVICE COMMAND")]
    service_and_command: Vec<String>,
}

impl Verb for Run {
    fn call(self, session: &Session) -> Outcome {
        let mut words = self.service_and_command.iter().cloned();
        let name = words.next().unwrap_or_default();
        let loaded = load(session, std::slice::from_ref(&name))?;
        let engine = session.engine()?;
        let project = &loaded.project;
        let mut service = loaded.service(&name)?.clone();
        let mut chosen = graph::chosen(&project.services, std::slice::from_ref(&name), self.no_deps)?;
        let how = Images { build: self.build, ..Images::default() };
        let images = resources::images(session, &loaded, &chosen, how)?;
        resources::make(engine, &loaded, &chosen)?;
        chosen.remove(&name);
        if !chosen.is_empty() {
            let existing = existing::all(engine, &project.name)?;
            let how = How { keep: true, start: true, ..How::default() };
            Convergence {
                engine,
                loaded: &loaded,
                services: &chosen,
                images: &images,
                existing: &existing,
                how: &how,
            }
            .await_for(&service)?;
        }
        let command: Vec<String> = words.collect();
        if !command.is_empty() {
            service.command = command;
        }
        service.flags.retain(|flag| !flag.starts_with("--restart="));
        service.flags.extend(self.flags());
        let own = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        for text in &self.env {
            service.environment.extend(crate::parse::env::variable(text, own)?);
        }
        service.entrypoint = if self.entrypoint.is_some() { None } else { service.entrypoint };
        service.tty = !self.detach && !self.no_tty && has_terminal();
        service.open_stdin = !self.detach;
        let random = engine.new_id();
        let made_up = format!("{}-{name}-run-{}", project.name, random.get(..12).unwrap_or(&random));
        let container = self.name.clone().unwrap_or(made_up);
        let which = Which::OneOff { name: &container, ports: self.service_ports, aliases: self.use_aliases };
        let using = if self.detach { Use::Detached } else { Use::Foreground };
        let mut request = loaded.request(&service, which, using)?;
        for port in &self.publish {
            request.ports.extend(crate::options::create::publish(port)?.0);
        }
        let going =
            Going { detach: self.detach, quiet: true, keys: Keys::docker(), sig_proxy: true, phases: false };
        go(session, request, CidFile::claim(None)?, &going, Timing::default())
    }
}

impl Run {
    /// What is typed, as `create` takes it.
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        flags.extend(self.rm.then(|| "--rm".to_owned()));
        flags.extend(self.entrypoint.iter().map(|text| format!("--entrypoint={text}")));
        flags.extend(self.user.iter().map(|text| format!("--user={text}")));
        flags.extend(self.workdir.iter().map(|text| format!("--workdir={text}")));
        flags.extend(self.label.iter().map(|text| format!("--label={text}")));
        flags.extend(self.volume.iter().map(|text| format!("--volume={text}")));
        flags
    }
}
