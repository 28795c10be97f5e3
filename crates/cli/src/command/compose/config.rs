//! `config`: the project as it is understood.

use std::collections::BTreeSet;

use cata_compose::{graph, write};
use clap::{Args, ValueEnum};

use super::project::load;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Print yaml or json
    #[arg(long, value_name = "string", default_value = "yaml")]
    format: As,
    /// Print the names of services
    #[arg(long)]
    services: bool,
    /// Print the keys of volumes
    #[arg(long)]
    volumes: bool,
    /// Print the names of images
    #[arg(long)]
    images: bool,
    /// Print the profiles there are
    #[arg(long)]
    profiles: bool,
    /// Print what a service is, in 64 digits (* for all)
    #[arg(long, value_name = "string")]
    hash: Option<String>,
    /// Print how `cata create` would be called for each service
    #[arg(long)]
    commands: bool,
    /// Only look for what is wrong
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    only: Vec<String>,
}

/// In which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum As {
    Yaml,
    Json,
}

impl Verb for Config {
    fn call(self, session: &Session) -> Outcome {
        let loaded = load(session, &self.only)?;
        let project = &loaded.project;
        let chosen = graph::chosen(&project.services, &self.only, false)?;
        let services = || chosen.iter().filter_map(|name| project.services.get(name));
        // Whatever is printed: a service that could not be created is not all right.
        for service in services() {
            let which = cata_compose::Which::Number(1);
            loaded.request(service, which, crate::options::convert::Use::Create)?;
        }
        let mut lines: Vec<String> = Vec::new();
        if self.quiet {
        } else if self.services {
            lines.extend(chosen.iter().cloned());
        } else if self.volumes {
            lines.extend(project.volumes.keys().cloned());
        } else if self.images {
            lines.extend(services().map(|service| project.image(service)).collect::<BTreeSet<_>>());
        } else if self.profiles {
            let all = project.services.values().chain(project.disabled.values());
            lines.extend(all.flat_map(|service| service.profiles.iter().cloned()).collect::<BTreeSet<_>>());
        } else if let Some(wanted) = &self.hash {
            for service in
                services().filter(|service| wanted == "*" || wanted.split(',').any(|n| n == service.name))
            {
                lines.push(format!("{} {}", service.name, project.hash(service)?));
            }
        } else if self.commands {
            for service in services() {
                let wanted = project.wanted(
                    service,
                    cata_compose::Which::Number(1),
                    &loaded.directory,
                    &loaded.files,
                )?;
                let words = wanted.words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
                lines.push(format!("cata create {words}"));
            }
        } else {
            let mut document = write::escaped(write::json(&project.tree));
            if let Some(map) = document.as_object_mut() {
                map.shift_remove("version");
                map.insert("name".to_owned(), project.name.clone().into());
                if let Some(services) = map.get_mut("services").and_then(serde_json::Value::as_object_mut) {
                    services.retain(|name, _| chosen.contains(name));
                }
            }
            let text =
                if self.format == As::Json { format!("{document:#}\n") } else { write::yaml(&document) };
            session::print(text)?;
        }
        lines.iter().try_for_each(session::print_line)?;
        Ok(Exit::OK)
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
