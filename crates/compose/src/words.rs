//! A service's container as the command line of `create`, with Docker's own labels, by which everybody's tools
//! find the project.

use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::error::Result;
use crate::mount::{Mount, Rights, Source, quoted};
use crate::project::Project;
use crate::service::{Network, Service};
use crate::supply::Supply;

/// The project's name.
pub const PROJECT: &str = "com.docker.compose.project";
/// The service's key.
pub const SERVICE: &str = "com.docker.compose.service";
/// Which of the service's containers, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// What the service was when the container was made.
pub const HASH: &str = "com.docker.compose.config-hash";
/// `True`: one of `run`.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// A network's key.
pub const NETWORK: &str = "com.docker.compose.network";
/// A volume's key.
pub const VOLUME: &str = "com.docker.compose.volume";

/// A container that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What is typed behind `create`.
    pub words: Vec<String>,
    /// In place of the image's entry point; no flag can say a list.
    pub entrypoint: Option<Vec<String>>,
    /// The health check as a program, which no flag can say.
    pub probe: Vec<String>,
    /// Texts that are files in it.
    pub files: Vec<File>,
}

/// A text that is a file in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub target: String,
    /// What is in it.
    pub content: String,
    /// Whose it is.
    pub rights: Rights,
}

/// Which container of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// Of `up`, from 1.
    Number(u32),
    /// Of `run`, by this name.
    OneOff {
        /// The container's.
        name: &'a str,
        /// Whether ports are published.
        ports: bool,
        /// Whether it answers to the service's name.
        aliases: bool,
    },
}

impl Project {
    /// PURE: the name of a service's container.
    #[must_use]
    pub fn container(&self, service: &Service, number: u32) -> String {
        match &service.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{number}", self.name, service.name),
        }
    }

    /// PURE: the image of a service.
    #[must_use]
    pub fn image(&self, service: &Service) -> String {
        service.image.clone().unwrap_or_else(|| format!("{}-{}", self.name, service.name))
    }

    /// PURE: what a service is, in 64 digits: another value, another container.
    ///
    /// # Errors
    /// As [`Project::wanted`].
    pub fn hash(&self, service: &Service) -> Result<String> {
        let wanted = self.container_words(service, Which::Number(1))?;
        let whole = format!("{wanted:?}");
        let sum = digest(&SHA256, whole.as_bytes());
        Ok(sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// PURE: a container of a service.
    ///
    /// # Errors
    /// A name that is not defined.
    pub fn wanted(
        &self,
        service: &Service,
        which: Which<'_>,
        directory: &Path,
        files: &[String],
    ) -> Result<Wanted> {
        let mut wanted = self.container_words(service, which)?;
        let one_off = matches!(which, Which::OneOff { .. });
        let number = if let Which::Number(number) = which { number } else { 1 };
        let depends: Vec<String> = service
            .depends_on
            .iter()
            .map(|need| format!("{}:{}:{}", need.service, need.condition.word(), need.restart))
            .collect();
        let labels = [
            (PROJECT, self.name.clone()),
            (SERVICE, service.name.clone()),
            (NUMBER, number.to_string()),
            (ONE_OFF, if one_off { "True" } else { "False" }.to_owned()),
            (HASH, self.hash(service)?),
            ("com.docker.compose.depends_on", depends.join(",")),
            ("com.docker.compose.project.working_dir", directory.display().to_string()),
            ("com.docker.compose.project.config_files", files.join(",")),
        ];
        let name = match which {
            Which::Number(number) => self.container(service, number),
            Which::OneOff { name, .. } => name.to_owned(),
        };
        let mut words = vec![format!("--name={name}")];
        words.extend(labels.iter().map(|(key, value)| format!("--label={key}={value}")));
        words.append(&mut wanted.words);
        Ok(Wanted { words, ..wanted })
    }

    /// What makes one container differ from another, and nothing else.
    fn container_words(&self, service: &Service, which: Which<'_>) -> Result<Wanted> {
        let (ports, aliases) = match which {
            Which::Number(_) => (true, true),
            Which::OneOff { ports, aliases, .. } => (ports, aliases),
        };
        let kept = |flag: &&String| ports || !flag.starts_with("--publish=");
        let mut words: Vec<String> = service.flags.iter().filter(kept).cloned().collect();
        words.extend(service.tty.then(|| "--tty".to_owned()));
        words.extend(service.open_stdin.then(|| "--interactive".to_owned()));
        words.extend(service.environment.iter().map(|(name, value)| format!("--env={name}={value}")));
        words.extend(service.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        match &service.network {
            Network::Networks(list) => {
                for attachment in list {
                    // Defined: the project was checked.
                    let Some(network) = self.networks.get(&attachment.network) else { continue };
                    let mut fields = vec![format!("name={}", network.name)];
                    if aliases {
                        fields.push(format!("alias={}", service.name));
                        fields.extend_from_slice(&attachment.fields);
                    }
                    words.push(format!("--network={}", fields.join(",")));
                }
            }
            Network::Mode(mode) => words.push(format!("--network={mode}")),
            Network::Borrowed => {}
        }
        for borrow in &service.borrows {
            let lender = self.services.get(&borrow.service);
            let name = lender.map(|lender| self.container(lender, 1)).unwrap_or_default();
            words.push(format!("{}{name}{}", borrow.before, borrow.after));
        }
        words.extend(service.mounts.iter().filter_map(|mount| self.mount(mount)));
        let files = service.mounts.iter().filter_map(|mount| self.file(mount)).collect();
        words.push(self.image(service));
        words.extend(service.command.iter().cloned());
        Ok(Wanted { words, entrypoint: service.entrypoint.clone(), probe: service.probe.clone(), files })
    }

    fn mount(&self, mount: &Mount) -> Option<String> {
        let options =
            if mount.options.is_empty() { String::new() } else { format!(":{}", mount.options.join(",")) };
        let source = match &mount.source {
            Source::Flag(flag) => return Some(flag.clone()),
            Source::Anonymous => return Some(format!("--volume={}", mount.target)),
            Source::Path(path) => path.clone(),
            Source::Volume(key) => self.volumes.get(key)?.name.clone(),
            Source::Secret(_) | Source::Config(_) => match self.supply(mount)? {
                Supply::File(path) => path.display().to_string(),
                Supply::Text(_) | Supply::Variable(..) => return None,
            },
        };
        if let Some(subpath) = &mount.subpath {
            let mut fields = vec!["type=volume".to_owned()];
            for (key, value) in [("source", &source), ("target", &mount.target), ("volume-subpath", subpath)]
            {
                fields.push(quoted(&format!("{key}={value}")));
            }
            let said = |option: &str| mount.options.iter().any(|have| have == option);
            fields.extend(said("ro").then(|| "readonly".to_owned()));
            fields.extend(said("nocopy").then(|| "volume-nocopy".to_owned()));
            return Some(format!("--mount={}", fields.join(",")));
        }
        Some(format!("--volume={source}:{}{options}", mount.target))
    }

    fn supply(&self, mount: &Mount) -> Option<&Supply> {
        match &mount.source {
            Source::Secret(key) => self.secrets.get(key),
            Source::Config(key) => self.configs.get(key),
            _ => None,
        }
    }

    fn file(&self, mount: &Mount) -> Option<File> {
        match self.supply(mount)? {
            Supply::File(_) => None,
            Supply::Text(content) | Supply::Variable(_, content) => {
                Some(File { target: mount.target.clone(), content: content.clone(), rights: mount.rights })
            }
        }
    }
}
