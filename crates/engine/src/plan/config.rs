//! PURE: what runs: the image's configuration with the request laid over it.

use std::collections::BTreeMap;

use cata_spec::ContainerId;

use crate::error::Error;
use crate::plan::{health, signal};
use crate::record::Config;
use crate::request::CreateRequest;

/// Docker's default PATH on Linux.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Seconds between a polite stop and SIGKILL.
const STOP_TIMEOUT: u64 = 10;

/// The parts of an image's configuration that a container takes over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageDefaults {
    /// `User`.
    pub user: String,
    /// `Env`.
    pub env: Vec<String>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `WorkingDir`.
    pub workdir: String,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `ExposedPorts`.
    pub exposed: Vec<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
    /// `Healthcheck`.
    pub health: Option<health::ImageHealth>,
}

/// Lays `request` over `image`.
///
/// # Errors
/// [`Error::Invalid`] when there is no command, or a signal or probe makes no sense.
pub fn plan(request: &CreateRequest, image: &ImageDefaults, id: &ContainerId) -> Result<Config, Error> {
    let (entrypoint, cmd) = match &request.entrypoint {
        // A new entry point makes the image's command meaningless: Docker drops it.
        Some(entrypoint) => (entrypoint.clone(), request.command.clone()),
        None if request.command.is_empty() => (image.entrypoint.clone(), image.cmd.clone()),
        None => (image.entrypoint.clone(), request.command.clone()),
    };
    let argv: Vec<String> = entrypoint.iter().chain(&cmd).cloned().collect();
    if argv.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    if argv[0].is_empty() {
        return Err(Error::Invalid("the command is an empty string".to_owned()));
    }
    let hostname = request.hostname.clone().unwrap_or_else(|| id.short().to_owned());
    let mut exposed: Vec<String> = image.exposed.iter().chain(&request.expose).map(|p| port(p)).collect();
    exposed.extend(request.ports.iter().map(|p| {
        let transport = match p.transport {
            cata_network::request::Transport::Tcp => "tcp",
            cata_network::request::Transport::Udp => "udp",
        };
        format!("{}/{transport}", p.container_port)
    }));
    exposed.sort_unstable();
    exposed.dedup();
    let mut labels = image.labels.clone();
    labels.extend(request.labels.clone());
    let stop_signal_name = request
        .stop_signal
        .clone()
        .or_else(|| image.stop_signal.clone())
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| "SIGTERM".to_owned());
    let stop_timeout = match request.stop_timeout {
        None => Some(STOP_TIMEOUT),
        Some(seconds) => u64::try_from(seconds).ok(),
    };
    Ok(Config {
        env: declared(request, image),
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        workdir: request.workdir.clone().unwrap_or_else(|| image.workdir.clone()),
        labels,
        hostname,
        exposed,
        stop_signal: signal::parse(&stop_signal_name)?,
        stop_signal_name,
        stop_timeout,
        health: health::plan(&request.health, image.health.as_ref())?,
        volumes: image.volumes.clone(),
        argv,
        entrypoint,
        cmd,
    })
}

fn port(text: &str) -> String {
    if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") }
}

/// What `inspect` shows, in Docker's order: the request's, then the image's that it does not replace.
fn declared(request: &CreateRequest, image: &ImageDefaults) -> Vec<String> {
    let mut env = Vec::with_capacity(request.env.len() + image.env.len());
    for (name, value) in &request.env {
        put(&mut env, format!("{name}={value}"));
    }
    for entry in &image.env {
        if !env.iter().any(|known| name_of(known) == name_of(entry)) {
            env.push(entry.clone());
        }
    }
    env
}

/// What the process gets: PATH, HOSTNAME and TERM as Docker sets them, replaced by what is declared. HOME is
/// the runtime's, who knows the password file.
#[must_use]
pub fn environment(config: &Config, tty: bool) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", config.hostname)];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &config.env {
        put(&mut env, entry.clone());
    }
    env
}

/// Adds a variable, in the place of one of the same name.
fn put(env: &mut Vec<String>, entry: String) {
    match env.iter_mut().find(|known| name_of(known) == name_of(&entry)) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    fn id() -> ContainerId {
        ContainerId::from_random([1; 32])
    }

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["server".into()],
            env: vec!["PATH=/opt/bin".into(), "A=image".into()],
            ..ImageDefaults::default()
        }
    }

    #[test]
    fn command_replaces_cmd_and_entrypoint_drops_it() {
        let plain = plan(&request(), &image(), &id()).unwrap();
        assert_eq!(plain.argv, ["/entry", "server"]);
        let mut with_command = request();
        with_command.command = vec!["sh".into()];
        assert_eq!(plan(&with_command, &image(), &id()).unwrap().argv, ["/entry", "sh"]);
        let mut with_entrypoint = request();
        with_entrypoint.entrypoint = Some(vec!["/bin/ls".into()]);
        assert_eq!(plan(&with_entrypoint, &image(), &id()).unwrap().argv, ["/bin/ls"]);
    }

    #[test]
    fn no_command_is_an_error() {
        let error = plan(&request(), &ImageDefaults::default(), &id()).unwrap_err();
        assert_eq!(error.to_string(), "no command specified");
    }

    #[test]
    fn environment_is_layered_default_image_request() {
        let mut asked = request();
        asked.env = vec![("A".into(), "asked".into()), ("B".into(), String::new())];
        let config = plan(&asked, &image(), &id()).unwrap();
        assert_eq!(config.env, ["A=asked", "B=", "PATH=/opt/bin"]);
        let process = environment(&config, true);
        assert_eq!(process, ["PATH=/opt/bin", "HOSTNAME=010101010101", "TERM=xterm", "A=asked", "B="]);
    }

    #[test]
    fn stop_timeout_of_minus_one_waits_for_ever() {
        let mut asked = request();
        asked.stop_timeout = Some(-1);
        assert_eq!(plan(&asked, &image(), &id()).unwrap().stop_timeout, None);
        assert_eq!(plan(&request(), &image(), &id()).unwrap().stop_timeout, Some(10));
    }
}
