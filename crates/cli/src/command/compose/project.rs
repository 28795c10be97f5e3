//! Finding a project's files and reading them, with the caller's environment and `.env`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cata_compose::hook::Hook;
use cata_compose::variable::env_file;
use cata_compose::words::{self, Wanted};
use cata_compose::{Around, Asked, Project, Service, Which};
use cata_engine::request::{CreateRequest, FileRequest};

use super::ProjectOptions;
use crate::command::container::create::request_of;
use crate::options::convert::Use;
use crate::render::error::Failure;
use crate::session::{self, Session};

/// A project and where it is.
pub(super) struct Loaded {
    /// What it is.
    pub(super) project: Project,
    /// Where relative paths begin.
    pub(super) directory: PathBuf,
    /// Its files, absolute.
    pub(super) files: Vec<String>,
}

/// Names that are looked for, the first that is there counts, and what is laid over it.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// The project that the flags lead to; services of `named` are meant whatever their profiles.
pub(super) fn load(session: &Session, named: &[String]) -> Result<Loaded, Failure> {
    let options = session.project();
    let current = std::env::current_dir().map_err(|e| Failure::io("find the working directory", &e))?;
    let first = files(options, &current)?;
    let directory = match &options.project_directory {
        Some(directory) => current.join(directory),
        None => match first.first() {
            Some(path) if path.as_os_str() != "-" => path.parent().unwrap_or(&current).to_owned(),
            _ => current.clone(),
        },
    };
    let variables = variables(options, &directory)?;
    let variable = |name: &str| own(name).or_else(|| variables.get(name).cloned());
    let paths = if options.file.is_empty() && own("COMPOSE_FILE").is_none() {
        // .env may say which files there are.
        listed(variables.get("COMPOSE_FILE"), &directory).unwrap_or(first)
    } else {
        first
    };
    let mut texts = Vec::new();
    for path in &paths {
        texts.push((
            short(path, &current),
            read(path).map_err(|why| Failure::client(format!("{}: {why}", path.display())))?,
        ));
    }
    let split = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let profiles = if options.profile.is_empty() {
        variable("COMPOSE_PROFILES").map(split).unwrap_or_default()
    } else {
        options.profile.clone()
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let around = Around { variable: &variable, read: &read, directory: &directory, home: home.as_deref() };
    let name =
        options.project_name.clone().or_else(|| variable("COMPOSE_PROJECT_NAME")).filter(|n| !n.is_empty());
    let asked = Asked { files: &texts, name, profiles: &profiles, named };
    let project = cata_compose::load(&asked, &around)?;
    for warning in &project.warnings {
        session::note(format!("WARNING: {warning}"));
    }
    let files = paths.iter().map(|path| path.display().to_string()).collect();
    Ok(Loaded { project, directory, files })
}

/// A variable of the caller's.
fn own(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn read(path: &Path) -> Result<String, String> {
    let plain =
        |error: std::io::Error| Failure::io("read", &error).message().trim_start_matches("read: ").to_owned();
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(plain)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(plain)
}

/// As the caller would write it.
fn short(path: &Path, current: &Path) -> String {
    if path.as_os_str() == "-" {
        return "(standard input)".to_owned();
    }
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}

/// `COMPOSE_FILE`.
fn listed(text: Option<&String>, directory: &Path) -> Option<Vec<PathBuf>> {
    let text = text.filter(|text| !text.is_empty())?;
    let separator = own("COMPOSE_PATH_SEPARATOR").unwrap_or_else(|| ":".to_owned());
    Some(text.split(separator.as_str()).map(|path| directory.join(path)).collect())
}

/// What `-f` says, or `COMPOSE_FILE`, or what is found here or above.
fn files(options: &ProjectOptions, current: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !options.file.is_empty() {
        let path = |text: &String| if text == "-" { PathBuf::from("-") } else { current.join(text) };
        return Ok(options.file.iter().map(path).collect());
    }
    if let Some(files) = listed(own("COMPOSE_FILE").as_ref(), current) {
        return Ok(files);
    }
    let begin =
        options.project_directory.as_ref().map_or_else(|| current.to_owned(), |dir| current.join(dir));
    for directory in begin.ancestors() {
        let found =
            |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
        if let Some(file) = found(&NAMES) {
            return Ok(std::iter::once(file).chain(found(&OVERRIDES)).collect());
        }
    }
    Err(Failure::client(format!("no Compose file in {} or above it", begin.display()))
        .with_hint(format!("one of {}, or -f FILE", NAMES.join(", "))))
}

/// The variables of `--env-file`, or of `.env`.
fn variables(options: &ProjectOptions, directory: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let asked = options.env_file.iter().map(PathBuf::from).collect::<Vec<_>>();
    let usual = directory.join(".env");
    let files = if asked.is_empty() && usual.is_file() { vec![usual] } else { asked };
    let mut all = BTreeMap::new();
    for file in files {
        let text = read(&file).map_err(|why| Failure::client(format!("{}: {why}", file.display())))?;
        let read = env_file(&text, &own)
            .map_err(|(line, why)| Failure::client(format!("{}:{line}: {why}", file.display())))?;
        all.extend(read);
    }
    Ok(all)
}

impl Loaded {
    /// One of the services that are meant.
    pub(super) fn service(&self, name: &str) -> Result<&Service, Failure> {
        let found = self.project.services.get(name);
        found.ok_or_else(|| cata_compose::Error::NoService(name.to_owned()).into())
    }

    /// What creates a container of a service.
    pub(super) fn request(
        &self,
        service: &Service,
        which: Which<'_>,
        using: Use,
    ) -> Result<CreateRequest, Failure> {
        let Wanted { words, entrypoint, probe, files } =
            self.project.wanted(service, which, &self.directory, &self.files)?;
        let about = |failure: Failure| failure.of(format!("{}: service {}", service.place, service.name));
        let mut request = request_of(words, using).map_err(about)?;
        request.entrypoint = entrypoint.or(request.entrypoint);
        request.health.argv = probe;
        let file = |file: words::File| FileRequest {
            target: file.target,
            content: file.content,
            uid: file.rights.uid.unwrap_or(0),
            gid: file.rights.gid.unwrap_or(0),
            mode: file.rights.mode.unwrap_or(0o444),
        };
        request.files = files.into_iter().map(file).collect();
        Ok(request)
    }

    /// What is run in a service's containers before they are stopped.
    pub(super) fn before_stop(&self, service: &str) -> &[Hook] {
        let project = &self.project;
        let found = project.services.get(service).or_else(|| project.disabled.get(service));
        found.map(|service| service.pre_stop.as_slice()).unwrap_or_default()
    }
}
