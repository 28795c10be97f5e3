//! Logins as Docker keeps them: `config.json` and `docker-credential-*` programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use crate::error::RegistryError;

/// What to show a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Name and password.
    Password(String, String),
    /// A refresh token for the token service.
    IdentityToken(String),
    /// A token for the registry itself.
    RegistryToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(..) => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

/// Where Docker's own registry keeps its login.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where the login file is: as told, or `$DOCKER_CONFIG`, or `~/.docker`.
pub(crate) fn config_path(told: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = told {
        return Some(path.to_owned());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(dir.join("config.json"))
}

/// The login for `host`, if there is one.
pub(crate) fn lookup(path: Option<&Path>, host: &str) -> Result<Option<Credentials>, RegistryError> {
    let Some(path) = config_path(path) else { return Ok(None) };
    let wrong = |message: String| RegistryError::Config { path: path.clone(), message };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let document: Document = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let key = key(host);
    let helper = document.cred_helpers.get(host).or_else(|| document.cred_helpers.get(key));
    if let Some(helper) = helper.or(document.creds_store.as_ref().filter(|name| !name.is_empty()))
        && let Some(found) = ask_helper(helper, key)?
    {
        return Ok(Some(found));
    }
    let auth = document.auths.get(key).or_else(|| {
        document.auths.iter().find(|(known, _)| host_of(known) == host_of(key)).map(|(_, auth)| auth)
    });
    Ok(auth.and_then(from_file))
}

/// Under which a login is kept.
pub(crate) fn key(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB_KEY } else { host }
}

/// `https://host/v1/` and `host` are the same key.
pub(crate) fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

/// A login as Docker's clients send it; `None`: it says nothing.
pub(crate) fn from_document(auth: &serde_json::Value) -> Option<Credentials> {
    from_file(&Auth::deserialize(auth).ok()?)
}

fn from_file(auth: &Auth) -> Option<Credentials> {
    if !auth.identitytoken.is_empty() {
        return Some(Credentials::IdentityToken(auth.identitytoken.clone()));
    }
    if !auth.registrytoken.is_empty() {
        return Some(Credentials::RegistryToken(auth.registrytoken.clone()));
    }
    if !auth.username.is_empty() {
        return Some(Credentials::Password(auth.username.clone(), auth.password.clone()));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    (!user.is_empty()).then(|| Credentials::Password(user.to_owned(), password.to_owned()))
}

/// What a helper says that knows nothing of a registry.
const NOT_FOUND: &str = "credentials not found";

/// Runs `docker-credential-NAME VERB` and returns what it prints.
pub(crate) fn run_helper(name: &str, verb: &str, input: &str) -> Result<String, RegistryError> {
    let program = format!("docker-credential-{name}");
    let failed = |message: String| RegistryError::CredentialHelper { program: program.clone(), message };
    if name.contains('/') {
        return Err(failed("its name has a slash".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input has its answer all the same.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let words =
        if said.trim().is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { said };
    Err(failed(words.trim().to_owned()))
}

/// Runs `docker-credential-NAME get`.
fn ask_helper(name: &str, key: &str) -> Result<Option<Credentials>, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{name}");
    let said = match run_helper(name, "get", key) {
        Err(RegistryError::CredentialHelper { message, .. }) if message.contains(NOT_FOUND) => {
            return Ok(None);
        }
        said => said?,
    };
    let failed = |message: String| RegistryError::CredentialHelper { program: program.clone(), message };
    let answer: Answer = serde_json::from_str(&said).map_err(|error| failed(error.to_string()))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Password(answer.username, answer.secret)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn logins_are_found_under_dockers_keys() {
        let (_dir, path) = written(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"localhost:5000":{"auth":"YTpiOmM="},
                "https://r.example/v2/":{"identitytoken":"tok"},"empty.example":{}},"HttpHeaders":{}}"#,
        );
        let find = |host| lookup(Some(&path), host).unwrap();
        assert_eq!(find("docker.io"), Some(Credentials::Password("u".into(), "p".into())));
        assert_eq!(find("localhost:5000"), Some(Credentials::Password("a".into(), "b:c".into())));
        assert_eq!(find("r.example"), Some(Credentials::IdentityToken("tok".into())));
        assert_eq!(find("empty.example"), None);
        assert_eq!(find("other.example"), None);
        assert_eq!(lookup(Some(Path::new("/nonexistent/config.json")), "x").unwrap(), None);
    }

    #[test]
    fn a_damaged_file_and_a_missing_helper_are_named() {
        let (_dir, path) = written("{");
        assert!(lookup(Some(&path), "x").unwrap_err().to_string().contains("config.json"));
        let (_dir, path) = written(r#"{"credHelpers":{"x":"no-such-helper"}}"#);
        let error = lookup(Some(&path), "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-no-such-helper"), "{error}");
    }
}
