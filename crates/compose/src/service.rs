//! A service: its keys, read into what `cata create` and `cata build` would be told.
//!
//! Most keys of a service are flags of `create` under another name. They are kept as such ([`Service::flags`]),
//! so that there is one grammar for ports, mounts, sizes and the like: the command line's.

use std::collections::BTreeMap;

use crate::develop::{self, Watch};
use crate::error::{Error, Place, Result};
use crate::fields::{Fields, items, text, unsupported, wrong};
use crate::flags::{self, Said};
use crate::hook::{self, Hook};
use crate::node::{Node, Value};
use crate::project::Around;
use crate::{build, mount, variable};

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its key.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// As written.
    pub image: Option<String>,
    /// How its image is made.
    pub build: Option<build::Build>,
    /// `container_name`.
    pub container_name: Option<String>,
    /// In place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's.
    pub command: Vec<String>,
    /// With those of files.
    pub environment: BTreeMap<String, String>,
    /// Without those of Compose.
    pub labels: BTreeMap<String, String>,
    /// Flags of `create` that need no other part of the project.
    pub flags: Vec<String>,
    /// `healthcheck.test` as a program and its arguments.
    pub probe: Vec<String>,
    /// What it is connected to.
    pub network: Network,
    /// Whose namespaces, volumes or name it takes: flags of `create` and the services they name.
    pub borrows: Vec<Borrow>,
    /// `volumes`, `secrets`, `configs`.
    pub mounts: Vec<mount::Mount>,
    /// Who has to be there before it.
    pub depends_on: Vec<Dependency>,
    /// When it is meant; always, if there are none.
    pub profiles: Vec<String>,
    /// How many containers.
    pub scale: u32,
    /// When its image is pulled.
    pub pull: Pull,
    /// A terminal.
    pub tty: bool,
    /// Standard input.
    pub open_stdin: bool,
    /// Whether `up` shows what it writes.
    pub attach: bool,
    /// What is run in it when it has started.
    pub post_start: Vec<Hook>,
    /// What is run in it before it is stopped.
    pub pre_stop: Vec<Hook>,
    /// What `watch` looks at.
    pub watch: Vec<Watch>,
}

/// `network_mode` and `networks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Those, by key.
    Networks(Vec<Attachment>),
    /// As `--network` has it.
    Mode(String),
    /// That of another service's container: in [`Service::borrows`].
    Borrowed,
}

/// A place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network's key.
    pub network: String,
    /// Further fields of `--network`: `alias=…`, `ip=…`.
    pub fields: Vec<String>,
    /// Who is connected first.
    pub priority: i64,
    /// Where it is said.
    pub place: Place,
}

/// A flag of `create` that names another service's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrow {
    /// What stands before the container's name (`--pid=container:`).
    pub before: String,
    /// The service.
    pub service: String,
    /// What stands behind it.
    pub after: String,
}

/// Another service that has to be there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Which.
    pub service: String,
    /// In which state.
    pub condition: Condition,
    /// Whether this one is restarted when that one is.
    pub restart: bool,
    /// Whether it is a failure when that one is not.
    pub required: bool,
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Started,
    /// Its health check says so.
    Healthy,
    /// It has ended well.
    Completed,
}

impl Condition {
    /// As the specification has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "service_started",
            Self::Healthy => "service_healthy",
            Self::Completed => "service_completed_successfully",
        }
    }
}

/// `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// When it is not there.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
    /// It is built each time.
    Build,
}

impl Service {
    /// `platform`.
    #[must_use]
    pub fn platform(&self) -> Option<&str> {
        self.flags.iter().find_map(|flag| flag.strip_prefix("--platform="))
    }
}

const UNSUPPORTED: &[&str] = &[
    "blkio_config",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "external_links",
    "models",
    "provider",
    "runtime",
    "storage_opt",
    "use_api_socket",
    "volume_driver",
];

/// PURE, but for the files that it names: a service of its keys.
pub(crate) fn read(name: &str, node: &Node, around: &Around<'_>) -> Result<Service> {
    let mut fields = Fields::of(node, format!("services.{name}"))?;
    let Said { flags, mut borrows, probe, replicas } = flags::read(&mut fields)?;
    let scale = fields.number("scale")?.or(replicas).unwrap_or(1);
    let network = network(&mut fields, &mut borrows)?;
    let depends_on = depends_on(&mut fields, &borrows)?;
    let service = Service {
        name: name.to_owned(),
        place: node.place.clone(),
        image: fields.text("image")?,
        build: build::read(&mut fields, around)?,
        container_name: fields.text("container_name")?,
        entrypoint: words(&mut fields, "entrypoint")?,
        command: words(&mut fields, "command")?.unwrap_or_default(),
        environment: environment(&mut fields, around)?,
        labels: all_labels(&mut fields, around)?,
        flags,
        probe,
        network,
        borrows,
        mounts: mount::read(&mut fields, around)?,
        depends_on,
        profiles: fields.texts("profiles")?,
        scale,
        pull: pull(&mut fields)?,
        tty: fields.flag("tty")?,
        open_stdin: fields.flag("stdin_open")?,
        attach: fields.flag_if_any("attach")?.unwrap_or(true),
        post_start: hook::read(&mut fields, "post_start", around)?,
        pre_stop: hook::read(&mut fields, "pre_stop", around)?,
        watch: develop::read(&mut fields, around)?,
    };
    fields.finish(UNSUPPORTED)?;
    if service.image.is_none() && service.build.is_none() {
        return Err(wrong(node, &format!("services.{name}"), "a mapping with an image or a build"));
    }
    Ok(service)
}

/// A command line: a list, or text as a shell would split it.
pub(crate) fn words(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<Vec<String>>> {
    let name = fields.name(key);
    let Some(node) = fields.take(key) else { return Ok(None) };
    match &node.value {
        Value::List(list) => list.iter().map(|item| text(item, &name)).collect::<Result<_>>().map(Some),
        _ => {
            let split = shlex::split(&text(node, &name)?);
            split.ok_or_else(|| wrong(node, &name, "a command line with its quotes closed")).map(Some)
        }
    }
}

pub(crate) fn labels(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>> {
    let pairs = fields.pairs("labels")?.into_iter();
    Ok(pairs.map(|(name, value)| (name, value.unwrap_or_default())).collect())
}

/// With those of files, which come first.
fn all_labels(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<BTreeMap<String, String>> {
    let name = fields.name("label_file");
    let mut all = BTreeMap::new();
    for item in fields.take("label_file").map(items).unwrap_or_default() {
        let path = around.path(&text(item, &name)?);
        let failed = |why| Error::Read { place: item.place.clone(), path: path.clone(), why };
        let content = (around.read)(&path).map_err(failed)?;
        let read = variable::env_file(&content, around.variable);
        all.extend(read.map_err(|(line, why)| failed(format!("line {line}: {why}")))?);
    }
    all.extend(labels(fields)?);
    Ok(all)
}

fn environment(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let name = fields.name("env_file");
    for item in fields.take("env_file").map(items).unwrap_or_default() {
        let mut raw = false;
        let (path, required) = match item.value {
            Value::Map(_) => {
                let mut file = Fields::of(item, name.clone())?;
                let path = file.text("path")?;
                let required = file.flag_if_any("required")?.unwrap_or(true);
                raw = match file.text("format")?.as_deref() {
                    None => false,
                    Some("raw") => true,
                    Some(_) => return Err(wrong(item, &file.name("format"), "raw, or absent")),
                };
                file.finish(&[])?;
                (path.ok_or_else(|| wrong(item, &name, "a mapping with a path"))?, required)
            }
            _ => (text(item, &name)?, true),
        };
        let path = around.path(&path);
        let content = match (around.read)(&path) {
            Ok(content) => content,
            Err(_) if !required => continue,
            Err(why) => return Err(Error::Read { place: item.place.clone(), path, why }),
        };
        if raw {
            all.extend(as_written(&content));
            continue;
        }
        let read = variable::env_file(&content, around.variable).map_err(|(line, why)| Error::Read {
            place: item.place.clone(),
            path,
            why: format!("line {line}: {why}"),
        })?;
        all.extend(read);
    }
    for (name, value) in fields.pairs("environment")? {
        match value.or_else(|| (around.variable)(&name)) {
            Some(value) => drop(all.insert(name, value)),
            // A name without a value anywhere: not set, whatever a file says.
            None => drop(all.remove(&name)),
        }
    }
    Ok(all)
}

/// PURE: lines of `NAME=value`, values as they stand: quotes and dollars mean nothing.
fn as_written(content: &str) -> impl Iterator<Item = (String, String)> {
    let lines = content.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
}

fn network(fields: &mut Fields<'_>, borrows: &mut Vec<Borrow>) -> Result<Network> {
    let mode = fields.take("network_mode");
    let name = fields.name("networks");
    let Some(node) = fields.take("networks") else {
        let Some(mode) = mode else {
            let place = fields.node.place.clone();
            let default =
                Attachment { network: "default".to_owned(), fields: Vec::new(), priority: 0, place };
            return Ok(Network::Networks(vec![default]));
        };
        let mode = text(mode, "network_mode")?;
        if let Some(service) = mode.strip_prefix("service:") {
            borrows.push(flags::borrow("--network=container:".to_owned(), service, ""));
            return Ok(Network::Borrowed);
        }
        return Ok(Network::Mode(mode));
    };
    if let Some(mode) = mode {
        return Err(wrong(mode, &fields.name("network_mode"), "absent where there are networks"));
    }
    let node = crate::merge::pairs(node.clone())?;
    let Value::Map(entries) = &node.value else { return Err(wrong(&node, &name, "a list or a mapping")) };
    let mut list = Vec::new();
    for (network, node) in entries {
        let mut place = Fields::of(node, format!("{name}.{network}"))?;
        let mut all: Vec<String> =
            place.texts("aliases")?.into_iter().map(|alias| format!("alias={alias}")).collect();
        for (key, field) in [
            ("ipv4_address", "ip"),
            ("ipv6_address", "ip6"),
            ("mac_address", "mac-address"),
            ("gw_priority", "gw-priority"),
        ] {
            all.extend(place.text(key)?.map(|value| format!("{field}={value}")));
        }
        let priority = place.number("priority")?.unwrap_or(0);
        place.finish(&["driver_opts", "interface_name", "link_local_ips"])?;
        list.push(Attachment { network: network.clone(), fields: all, priority, place: node.place.clone() });
    }
    // Docker's clients connect the weightiest first, and else by name.
    list.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.network.cmp(&b.network)));
    Ok(Network::Networks(list))
}

fn depends_on(fields: &mut Fields<'_>, borrows: &[Borrow]) -> Result<Vec<Dependency>> {
    let name = fields.name("depends_on");
    let mut list: Vec<Dependency> = Vec::new();
    if let Some(node) = fields.take("depends_on") {
        let node = crate::merge::pairs(node.clone())?;
        let Value::Map(entries) = &node.value else {
            return Err(wrong(&node, &name, "a list or a mapping"));
        };
        for (service, node) in entries {
            let mut one = Fields::of(node, format!("{name}.{service}"))?;
            let condition = match one.text("condition")?.as_deref() {
                None | Some("service_started") => Condition::Started,
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                Some(_) => {
                    let wanted = "service_started, service_healthy or service_completed_successfully";
                    return Err(wrong(node, &one.name("condition"), wanted));
                }
            };
            let restart = one.flag("restart")?;
            let required = one.flag_if_any("required")?.unwrap_or(true);
            one.finish(&[])?;
            list.push(Dependency { service: service.clone(), condition, restart, required });
        }
    }
    for borrow in borrows {
        if !list.iter().any(|have| have.service == borrow.service) {
            list.push(Dependency {
                service: borrow.service.clone(),
                condition: Condition::Started,
                restart: false,
                required: true,
            });
        }
    }
    Ok(list)
}

fn pull(fields: &mut Fields<'_>) -> Result<Pull> {
    let name = fields.name("pull_policy");
    let Some(node) = fields.take("pull_policy") else { return Ok(Pull::Missing) };
    match text(node, &name)?.as_str() {
        "missing" | "if_not_present" => Ok(Pull::Missing),
        "always" => Ok(Pull::Always),
        "never" => Ok(Pull::Never),
        "build" => Ok(Pull::Build),
        word @ ("daily" | "weekly") => Err(unsupported(node, format!("{name} {word}"))),
        word if word.starts_with("every_") => Err(unsupported(node, format!("{name} {word}"))),
        _ => Err(wrong(node, &name, "always, missing, never or build")),
    }
}
