//! `login` and `logout`: a registry is asked first, then the login is kept where Docker keeps it.
//!
//! A keyring comes before a file: the helper that the login file names for the registry or for all, or else one
//! that is installed. Only without one the password is written, encoded but not encrypted, into the file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value, json};
use ureq::http::{Method, StatusCode};

use super::client::{Ask, Client};
use super::config::Config;
use super::credentials::{self, Credentials};
use crate::error::RegistryError;

/// Helpers that are used without being configured, if they are there and work.
const KEYRINGS: [&str; 2] = ["secretservice", "pass"];

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// By a credential helper.
    Helper(String),
    /// In the login file, not encrypted.
    File(PathBuf),
}

/// Logins that nobody keeps: they came with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins(BTreeMap<String, Credentials>);

impl Logins {
    /// Adds one for a registry, as Docker's clients write it (`username`, `password`, `identitytoken` …); one that
    /// says nothing is none.
    pub fn add(&mut self, server: &str, auth: &Value) {
        if let Some(credentials) = credentials::from_document(auth) {
            self.0.insert(host(server), credentials);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, host: &str) -> Option<&Credentials> {
        self.0.get(host)
    }
}

/// Asks a registry whether it takes the login that is given for it; false when none is.
///
/// # Errors
/// As [`login`].
pub fn check_given(config: &Config, host: &str) -> Result<bool, RegistryError> {
    match config.logins.get(host) {
        Some(given) => check(config, host, given.clone()).map(|()| true),
        None => Ok(false),
    }
}

/// The registry that a user means: without scheme and path; Docker's own goes by many names.
#[must_use]
pub fn host(server: &str) -> String {
    match credentials::host_of(server) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// Asks the registry whether it takes these credentials, and keeps them.
///
/// # Errors
/// [`RegistryError::Refused`]; a registry that cannot be reached; a helper or file that fails.
pub fn login(config: &Config, host: &str, user: &str, password: &str) -> Result<Kept, RegistryError> {
    check(config, host, Credentials::Password(user.to_owned(), password.to_owned()))?;
    keep(config, host, user, password)
}

/// Asks the registry whether it takes the credentials that are kept; false when none are.
///
/// # Errors
/// As [`login`].
pub fn check_kept(config: &Config, host: &str) -> Result<bool, RegistryError> {
    match credentials::lookup(config.docker_config.as_deref(), host)? {
        Some(kept) => check(config, host, kept).map(|()| true),
        None => Ok(false),
    }
}

fn check(config: &Config, host: &str, credentials: Credentials) -> Result<(), RegistryError> {
    let endpoint = config.endpoints(host).pop().expect("the registry itself is always one of its endpoints");
    let client = Client::with_login(config, endpoint, credentials);
    match client.send(Ask::new(Method::GET, "/v2/")) {
        Ok(response) if response.status() == StatusCode::OK => Ok(()),
        Ok(response) => Err(client.unexpected("GET /v2/", response)),
        Err(RegistryError::Unauthorized { registry, .. } | RegistryError::Denied { name: registry, .. }) => {
            Err(RegistryError::Refused(registry.trim_end_matches('/').to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn keep(config: &Config, host: &str, user: &str, password: &str) -> Result<Kept, RegistryError> {
    let path = file(config)?;
    let mut document = read(&path)?;
    let key = credentials::key(host);
    let secret = json!({ "ServerURL": key, "Username": user, "Secret": password }).to_string();
    let configured = helper(&document, host, key);
    let used = match configured {
        Some(name) => Some((name.clone(), credentials::run_helper(&name, "store", &secret)?)),
        None => KEYRINGS.iter().find_map(|name| {
            // One that is installed and does not work here is as good as none.
            let said = credentials::run_helper(name, "store", &secret).ok()?;
            entry(&mut document, "credHelpers").insert(key.to_owned(), json!(name));
            Some(((*name).to_owned(), said))
        }),
    };
    let kept = match used {
        Some((name, _)) => {
            // Docker lists the registry here all the same.
            entry(&mut document, "auths").insert(key.to_owned(), json!({}));
            Kept::Helper(name)
        }
        None => {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            entry(&mut document, "auths").insert(key.to_owned(), json!({ "auth": auth }));
            Kept::File(path.clone())
        }
    };
    write(&path, &document)?;
    Ok(kept)
}

/// Forgets a login; false when there was none.
///
/// # Errors
/// A helper or file that fails.
pub fn logout(config: &Config, host: &str) -> Result<bool, RegistryError> {
    let path = file(config)?;
    let mut document = read(&path)?;
    let key = credentials::key(host);
    let helper = helper(&document, host, key);
    let auths = entry(&mut document, "auths");
    let before = auths.len();
    auths.retain(|known, _| credentials::host_of(known) != credentials::host_of(key));
    let mut known = auths.len() != before;
    if let Some(name) = helper {
        known |= credentials::run_helper(&name, "erase", key).is_ok();
    }
    if before > 0 {
        write(&path, &document)?;
    }
    Ok(known)
}

fn file(config: &Config) -> Result<PathBuf, RegistryError> {
    let path = credentials::config_path(config.docker_config.as_deref());
    let path = path.ok_or_else(|| RegistryError::Config {
        path: PathBuf::from("config.json"),
        message: "neither DOCKER_CONFIG nor HOME says where it is".to_owned(),
    })?;
    // A link stays a link: what it leads to is replaced.
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

fn helper(document: &Value, host: &str, key: &str) -> Option<String> {
    let own = document.get("credHelpers").and_then(|helpers| helpers.get(host).or_else(|| helpers.get(key)));
    let name = own.or_else(|| document.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn entry<'d>(document: &'d mut Value, name: &str) -> &'d mut Map<String, Value> {
    if !document.get(name).is_some_and(Value::is_object) {
        document[name] = json!({});
    }
    document[name].as_object_mut().expect("made an object just above")
}

/// The whole file: what we do not know stays in it.
fn read(path: &Path) -> Result<Value, RegistryError> {
    let wrong = |message: String| RegistryError::Config { path: path.to_owned(), message };
    let document: Value = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(wrong(error.to_string())),
    };
    if document.is_object() { Ok(document) } else { Err(wrong("is not a JSON object".to_owned())) }
}

fn write(path: &Path, document: &Value) -> Result<(), RegistryError> {
    let wrong =
        |error: std::io::Error| RegistryError::Config { path: path.to_owned(), message: error.to_string() };
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        std::fs::create_dir_all(dir).map_err(wrong)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(wrong)?;
    }
    let new = path.with_extension(format!("json.{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut text = serde_json::to_vec_pretty(document)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        if !text.is_empty() {
            std::fs::write(&path, text).unwrap();
        }
        let mut config = Config::default();
        config.docker_config = Some(path);
        (dir, config)
    }

    #[test]
    fn host_knows_the_names_of_dockers_own() {
        for name in ["", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert_eq!(host(name), "docker.io", "{name}");
        }
        assert_eq!(host("https://r.example:5000/v2/"), "r.example:5000");
    }

    #[test]
    fn keep_and_logout_leave_the_rest_of_the_file_alone() {
        let (dir, config) = config(r#"{"HttpHeaders":{"a":"b"},"auths":{"x.example":{"auth":"dTpw"}}}"#);
        let kept = keep(&config, "docker.io", "sailor", "se:a").unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(kept, Kept::File(path.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let found = credentials::lookup(Some(&path), "docker.io").unwrap();
        assert_eq!(found, Some(Credentials::Password("sailor".into(), "se:a".into())));
        assert!(logout(&config, "docker.io").unwrap());
        assert!(!logout(&config, "docker.io").unwrap());
        assert_eq!(credentials::lookup(Some(&path), "docker.io").unwrap(), None);
        assert!(credentials::lookup(Some(&path), "x.example").unwrap().is_some());
        assert!(std::fs::read_to_string(&path).unwrap().contains("HttpHeaders"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn keep_in_a_damaged_file_is_refused_and_changes_nothing() {
        for text in ["{", "[]"] {
            let (dir, config) = config(text);
            assert!(keep(&config, "x", "u", "p").is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(dir.path().join("config.json")).unwrap(), text);
        }
        let (dir, config) = config("");
        keep(&config, "x", "u", "p").unwrap();
        assert!(dir.path().join("config.json").exists());
    }
}
