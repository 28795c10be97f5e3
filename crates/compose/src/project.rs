//! A project: what all its files together say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Place, Result};
use crate::fields::{Fields, items, unsupported, wrong};
use crate::graph;
use crate::merge::merge;
use crate::mount::{Rights, Source};
use crate::node::{self, Node, Value};
use crate::service::{self, Network as Connection, Service};
use crate::supply::{self, Supply};
use crate::variable::{self, Lookup};

/// What reading a project may know of the host.
pub struct Around<'a> {
    /// A variable's value: the caller's environment, then `.env`.
    pub variable: Lookup<'a>,
    /// A file's text, or why there is none.
    pub read: &'a dyn Fn(&Path) -> std::result::Result<String, String>,
    /// Where relative paths begin.
    pub directory: &'a Path,
    /// Where `~` is.
    pub home: Option<&'a Path>,
}

impl Around<'_> {
    /// A path of a file, absolute.
    #[must_use]
    pub fn path(&self, text: &str) -> PathBuf {
        let path = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                home.join(rest.trim_start_matches('/'))
            }
            _ => self.directory.join(text),
        };
        // `./x` is `x`; `..` stays: what it leads to is for the file system to say.
        path.components().collect()
    }
}

/// What is read.
pub struct Asked<'a> {
    /// Names and texts, the first at the bottom.
    pub files: &'a [(String, String)],
    /// `-p`, or the variable; before what a file says.
    pub name: Option<String>,
    /// `--profile`.
    pub profiles: &'a [String],
    /// Services that were named: theirs are profiles too.
    pub named: &'a [String],
}

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Those that are meant, by profile.
    pub services: BTreeMap<String, Service>,
    /// Those that are not.
    pub disabled: BTreeMap<String, Service>,
    /// Networks that its services use.
    pub networks: BTreeMap<String, Network>,
    /// All its volumes.
    pub volumes: BTreeMap<String, Volume>,
    /// Files in containers, by the key of the secret.
    pub secrets: BTreeMap<String, Supply>,
    /// Likewise, of configs.
    pub configs: BTreeMap<String, Supply>,
    /// The files, merged and with their variables replaced.
    pub tree: Node,
    /// What is worth saying.
    pub warnings: Vec<String>,
}

/// A network of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The engine's.
    pub name: String,
    /// It is there already.
    pub external: bool,
    /// `bridge`.
    pub driver: Option<String>,
    /// Without a way out.
    pub internal: bool,
    /// With IPv6.
    pub ipv6: bool,
    /// As `network create` takes them.
    pub subnets: Vec<String>,
    /// Likewise.
    pub gateways: Vec<String>,
    /// Likewise.
    pub ranges: Vec<String>,
    /// `driver_opts`.
    pub options: BTreeMap<String, String>,
    /// Without those of Compose.
    pub labels: BTreeMap<String, String>,
}

/// A volume of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The engine's.
    pub name: String,
    /// It is there already.
    pub external: bool,
    /// `driver_opts`.
    pub options: BTreeMap<String, String>,
    /// Without those of Compose.
    pub labels: BTreeMap<String, String>,
}

/// PURE, but for files that the project names: a project of its files.
///
/// # Errors
/// [`Error`].
pub fn load(asked: &Asked<'_>, around: &Around<'_>) -> Result<Project> {
    let mut warnings = BTreeSet::new();
    let mut tree: Option<Node> = None;
    for (file, text) in asked.files {
        let mut node = node::parse(file, text)?;
        variable::expand_all(&mut node, around.variable, &mut |name| {
            warnings.insert(format!("the variable {name} is not set: it is taken for blank"));
        })?;
        tree = Some(match tree {
            None => node,
            Some(base) => merge(base, node)?,
        });
    }
    let tree = tree.ok_or_else(|| Error::Empty("compose".to_owned()))?;
    let tree = crate::include::all(tree, around, &mut |name| {
        warnings.insert(format!("the variable {name} is not set: it is taken for blank"));
    })?;
    let tree = crate::extend::all(tree, around)?;
    let mut root = Fields::of(&tree, "")?;
    if let Some(node) = root.take("version") {
        warnings.insert(format!("{}: the key version has no meaning any more", node.place));
    }
    let own = root.text("name")?;
    let name = name(asked.name.clone().or(own), around)?;
    let mut project = Project {
        services: BTreeMap::new(),
        disabled: BTreeMap::new(),
        networks: networks(&mut root, &name)?,
        volumes: volumes(&mut root, &name)?,
        secrets: supply::read(&mut root, "secrets", around)?,
        configs: supply::read(&mut root, "configs", around)?,
        name,
        tree: tree.clone(),
        warnings: warnings.into_iter().collect(),
    };
    let all = services(&mut root, around)?;
    root.finish(&["models"])?;
    if all.is_empty() {
        return Err(Error::Empty(
            asked.files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        ));
    }
    divide(&mut project, all, asked)?;
    check(&project)?;
    let used = project.services.values().chain(project.disabled.values());
    let used: BTreeSet<String> = used.flat_map(|service| networks_of(service).map(str::to_owned)).collect();
    project.networks.retain(|key, _| used.contains(key));
    Ok(project)
}

/// PURE: a project's name: what was asked for, or the directory's.
fn name(asked: Option<String>, around: &Around<'_>) -> Result<String> {
    let good = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    };
    if let Some(name) = asked {
        return if good(&name) { Ok(name) } else { Err(Error::Name(name)) };
    }
    let directory = around.directory.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let directory = directory.unwrap_or_default();
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(*c);
    let name: String = directory.chars().filter(kept).collect();
    let name = name.trim_start_matches(['-', '_']).to_owned();
    if good(&name) { Ok(name) } else { Err(Error::Name(directory)) }
}

fn services(root: &mut Fields<'_>, around: &Around<'_>) -> Result<BTreeMap<String, Service>> {
    let mut all = BTreeMap::new();
    let Some(node) = root.take("services") else { return Ok(all) };
    let Value::Map(entries) = &node.value else { return Err(wrong(node, "services", "a mapping")) };
    for (name, node) in entries {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(good) {
            return Err(wrong(
                node,
                &format!("the service's name \"{name}\""),
                "letters, digits, '.', '_' and '-'",
            ));
        }
        all.insert(name.clone(), service::read(name, node, around)?);
    }
    Ok(all)
}

/// Which services are meant: those without profiles, those of the profiles, and those named with what they need.
fn divide(project: &mut Project, all: BTreeMap<String, Service>, asked: &Asked<'_>) -> Result<()> {
    if let Some(name) = asked.named.iter().find(|name| !all.contains_key(*name)) {
        return Err(Error::NoService((*name).clone()));
    }
    let mut profiles: BTreeSet<&str> = asked.profiles.iter().map(String::as_str).collect();
    for name in asked.named {
        let own = all.get(name).map(|service| service.profiles.as_slice()).unwrap_or_default();
        profiles.extend(own.iter().map(String::as_str));
    }
    let meant = |service: &Service| {
        service.profiles.is_empty()
            || profiles.contains("*")
            || service.profiles.iter().any(|profile| profiles.contains(profile.as_str()))
    };
    let meant: BTreeSet<String> =
        all.values().filter(|service| meant(service)).map(|service| service.name.clone()).collect();
    for (name, service) in all {
        let there = if meant.contains(&name) { &mut project.services } else { &mut project.disabled };
        there.insert(name, service);
    }
    Ok(())
}

fn networks_of(service: &Service) -> impl Iterator<Item = &str> {
    let list = match &service.network {
        Connection::Networks(list) => list.as_slice(),
        _ => &[],
    };
    list.iter().map(|attachment| attachment.network.as_str())
}

/// PURE: names that services use are defined, and nobody waits for himself.
fn check(project: &Project) -> Result<()> {
    for service in project.services.values() {
        let undefined = |place: &Place, kind, name: &str| Error::Undefined {
            place: place.clone(),
            service: service.name.clone(),
            kind,
            name: name.to_owned(),
        };
        if let Connection::Networks(list) = &service.network {
            for attachment in list {
                if !project.networks.contains_key(&attachment.network) {
                    return Err(undefined(&attachment.place, "network", &attachment.network));
                }
            }
        }
        for mount in &service.mounts {
            let (kind, key, there) = match &mount.source {
                Source::Volume(key) => ("volume", key, project.volumes.contains_key(key)),
                Source::Secret(key) => ("secret", key, project.secrets.contains_key(key)),
                Source::Config(key) => ("config", key, project.configs.contains_key(key)),
                _ => continue,
            };
            if !there {
                return Err(undefined(&mount.place, kind, key));
            }
            let supplies = if kind == "secret" { &project.secrets } else { &project.configs };
            if kind != "volume"
                && mount.rights != Rights::default()
                && matches!(supplies.get(key), Some(Supply::File(_)))
            {
                let what = format!("uid, gid or mode of the {kind} {key}, which is a file of the host,");
                return Err(Error::Unsupported { place: mount.place.clone(), what });
            }
        }
        for dependency in &service.depends_on {
            let name = &dependency.service;
            if dependency.required && !project.services.contains_key(name) {
                let kind = if project.disabled.contains_key(name) {
                    "service of another profile"
                } else {
                    "service"
                };
                return Err(undefined(&service.place, kind, name));
            }
        }
        if service.container_name.is_some() && service.scale > 1 {
            return Err(Error::Wrong {
                place: service.place.clone(),
                key: format!("services.{}.scale", service.name),
                wanted: "1 where there is a container_name".to_owned(),
            });
        }
    }
    graph::order(&project.services).map(|_| ())
}

/// `external: true`, or the old `external: {name: X}`.
fn external(fields: &mut Fields<'_>) -> Result<(bool, Option<String>)> {
    let key = fields.name("external");
    match fields.take("external") {
        Some(node) if matches!(node.value, Value::Map(_)) => {
            let mut inner = Fields::of(node, key)?;
            let name = inner.text("name")?;
            inner.finish(&[])?;
            Ok((true, name))
        }
        Some(_) => Ok((fields.flag("external")?, None)),
        None => Ok((false, None)),
    }
}

fn networks(root: &mut Fields<'_>, project: &str) -> Result<BTreeMap<String, Network>> {
    let mut all = BTreeMap::new();
    for (key, node) in entries(root, "networks")? {
        let mut fields = Fields::of(node, format!("networks.{key}"))?;
        let (external, old_name) = external(&mut fields)?;
        let name = fields.text("name")?.or(old_name);
        let default = if external { key.to_owned() } else { format!("{project}_{key}") };
        let mut network = Network { external, ..plain(name.unwrap_or(default)) };
        network.driver = fields.text("driver")?;
        network.internal = fields.flag("internal")?;
        network.ipv6 = fields.flag("enable_ipv6")?;
        let pairs = fields.pairs("driver_opts")?.into_iter();
        network.options = pairs.map(|(name, value)| (name, value.unwrap_or_default())).collect();
        network.labels = service::labels(&mut fields)?;
        // So can one made by `run`: any network can be joined.
        fields.take("attachable");
        if let Some(node) = fields.take("ipam") {
            addresses(node, &format!("networks.{key}.ipam"), &mut network)?;
        }
        fields.finish(&["enable_ipv4"])?;
        all.insert(key.to_owned(), network);
    }
    all.entry("default".to_owned()).or_insert_with(|| plain(format!("{project}_default")));
    Ok(all)
}

fn plain(name: String) -> Network {
    Network {
        name,
        external: false,
        driver: None,
        internal: false,
        ipv6: false,
        subnets: Vec::new(),
        gateways: Vec::new(),
        ranges: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

fn addresses(node: &Node, key: &str, network: &mut Network) -> Result<()> {
    let mut ipam = Fields::of(node, key)?;
    if let Some(driver) = ipam.text("driver")?
        && driver != "default"
    {
        return Err(unsupported(node, format!("{key}.driver {driver}")));
    }
    for item in ipam.take("config").map(items).unwrap_or_default() {
        let mut pool = Fields::of(item, format!("{key}.config"))?;
        network.subnets.extend(pool.text("subnet")?);
        network.gateways.extend(pool.text("gateway")?);
        network.ranges.extend(pool.text("ip_range")?);
        pool.finish(&["aux_addresses"])?;
    }
    ipam.finish(&["options"])
}

fn volumes(root: &mut Fields<'_>, project: &str) -> Result<BTreeMap<String, Volume>> {
    let mut all = BTreeMap::new();
    for (key, node) in entries(root, "volumes")? {
        let mut fields = Fields::of(node, format!("volumes.{key}"))?;
        let (external, old_name) = external(&mut fields)?;
        let name = fields.text("name")?.or(old_name);
        let default = if external { key.to_owned() } else { format!("{project}_{key}") };
        if let Some(driver) = fields.text("driver")?
            && driver != "local"
        {
            return Err(unsupported(node, format!("volumes.{key}.driver {driver}")));
        }
        let options = fields.pairs("driver_opts")?.into_iter();
        let options = options.map(|(name, value)| (name, value.unwrap_or_default())).collect();
        let labels = service::labels(&mut fields)?;
        fields.finish(&[])?;
        all.insert(key.to_owned(), Volume { name: name.unwrap_or(default), external, options, labels });
    }
    Ok(all)
}

pub(crate) fn entries<'n>(root: &mut Fields<'n>, section: &'static str) -> Result<Vec<(&'n str, &'n Node)>> {
    let Some(node) = root.take(section) else { return Ok(Vec::new()) };
    match &node.value {
        Value::Map(entries) => Ok(entries.iter().map(|(key, node)| (key.as_str(), node)).collect()),
        _ => Err(wrong(node, section, "a mapping")),
    }
}
