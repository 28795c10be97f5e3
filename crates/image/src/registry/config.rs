//! The configuration file's part about registries: mirrors, private CAs, registries without TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::login::Logins;
use crate::error::RegistryError;

/// What the engine was told about registries.
#[derive(Debug, Clone)]
pub struct Config {
    registries: BTreeMap<String, Registry>,
    /// Where Docker keeps one directory of certificates a host; `/etc/docker/certs.d`.
    pub certs_dir: Option<PathBuf>,
    /// Where the login file is; `None`: `$DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Logins that go before those of the file.
    pub logins: Logins,
    /// A connection on which nothing moves for so long is given up and tried again.
    pub stall_timeout: Duration,
    /// Before the first retry; doubled before each further one.
    pub retry_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            certs_dir: None,
            docker_config: None,
            logins: Logins::default(),
            stall_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(500),
        }
    }
}

/// One `[registry."host"]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Asked first, in order: `host[:port]`, or with `http://` or `https://` in front.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Plain HTTP is allowed; with HTTPS the certificate is not verified.
    #[serde(default)]
    pub insecure: bool,
    /// A PEM file of certificates trusted for this registry besides the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

impl Config {
    /// Reads `path`; a missing file is an empty configuration. A table that is not known is an error: most often a
    /// known one that is misspelt.
    ///
    /// # Errors
    /// [`RegistryError::Config`] naming the file and the fault.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let wrong = |message: String| RegistryError::Config { path: path.to_owned(), message };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut config = Self::parse(&text).map_err(wrong)?;
        config.certs_dir = Some(PathBuf::from("/etc/docker/certs.d"));
        Ok(config)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        for (host, registry) in &document.registry {
            for mirror in &registry.mirrors {
                if split_scheme(mirror).1.is_empty() {
                    return Err(format!("registry.\"{host}\": mirror `{mirror}` names no host"));
                }
            }
        }
        Ok(Self { registries: document.registry, ..Self::default() })
    }

    /// Adds or replaces what is known of one registry.
    pub fn set(&mut self, host: &str, registry: Registry) {
        self.registries.insert(host.to_owned(), registry);
    }

    /// What is known of `host`.
    #[must_use]
    pub fn registry(&self, host: &str) -> Registry {
        self.registries.get(host).cloned().unwrap_or_default()
    }

    /// Whom to ask for images of `registry`: its mirrors, then itself.
    #[must_use]
    pub fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let known = self.registry(registry);
        let mut endpoints: Vec<Endpoint> = known
            .mirrors
            .iter()
            .map(|mirror| {
                let (scheme, host) = split_scheme(mirror);
                self.endpoint(host.trim_end_matches('/'), scheme, true)
            })
            .collect();
        endpoints.push(self.endpoint(registry, None, false));
        endpoints
    }

    fn endpoint(&self, host: &str, scheme: Option<&str>, mirror: bool) -> Endpoint {
        let known = self.registry(host);
        let plain = match scheme {
            Some(scheme) => scheme == "http",
            None => known.insecure || is_loopback(host),
        };
        let certs = self.certs_dir.as_ref().map(|dir| dir.join(host));
        Endpoint {
            address: if host == "docker.io" { "registry-1.docker.io".to_owned() } else { host.to_owned() },
            host: host.to_owned(),
            // A host that may be plain is tried with TLS first only if the scheme says so or a CA is given.
            plain: plain && known.ca.is_none() && certs.as_ref().is_none_or(|dir| !has_certificates(dir)),
            fixed_scheme: scheme.is_some(),
            unverified: known.insecure,
            ca: known.ca,
            certs,
            mirror,
        }
    }
}

/// One host to speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port as named in references and logins.
    pub host: String,
    /// Host and port to connect to.
    pub address: String,
    /// HTTP instead of HTTPS.
    pub plain: bool,
    /// The scheme was written out: never try the other one.
    pub fixed_scheme: bool,
    /// The certificate is not verified.
    pub unverified: bool,
    /// A CA file.
    pub ca: Option<PathBuf>,
    /// A directory of CA files (`*.crt`) and of a certificate to show (`*.cert`, `*.key`).
    pub certs: Option<PathBuf>,
    /// Whether it stands in for another registry.
    pub mirror: bool,
}

impl Endpoint {
    /// `https://host:port`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("{}://{}", if self.plain { "http" } else { "https" }, self.address)
    }
}

fn split_scheme(mirror: &str) -> (Option<&str>, &str) {
    if let Some(host) = mirror.strip_prefix("http://") {
        (Some("http"), host)
    } else if let Some(host) = mirror.strip_prefix("https://") {
        (Some("https"), host)
    } else {
        (None, mirror)
    }
}

fn has_certificates(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "crt" || e == "cert"))
    })
}

/// `localhost`, 127.0.0.0/8 and ::1, with or without port.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or(rest)
    } else {
        host.split(':').next().unwrap_or(host)
    };
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_and_loopback_is_plain() {
        let config = Config::parse(
            "[registry.\"docker.io\"]\nmirrors = [\"localhost:5000\", \"https://m.example\"]\n\
             [registry.\"plain.example\"]\ninsecure = true\n",
        )
        .unwrap();
        let bases: Vec<String> = config.endpoints("docker.io").iter().map(Endpoint::base).collect();
        assert_eq!(bases, ["http://localhost:5000", "https://m.example", "https://registry-1.docker.io"]);
        assert_eq!(config.endpoints("plain.example")[0].base(), "http://plain.example");
        assert_eq!(config.endpoints("ghcr.io")[0].base(), "https://ghcr.io");
    }

    #[test]
    fn what_is_misspelt_is_an_error() {
        assert!(Config::parse("[registry.\"x\"]\nmirror = [\"y\"]\n").unwrap_err().contains("mirror"));
        assert!(
            Config::parse("[registry.\"x\"]\nmirrors = [\"http://\"]\n")
                .unwrap_err()
                .contains("names no host")
        );
        assert!(Config::parse("[registry").is_err());
        assert!(Config::parse("[registries.\"x\"]\ninsecure = true\n").unwrap_err().contains("registries"));
    }

    #[test]
    fn loopback_is_told_from_others() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "[2001:db8::1]:5000", "127.0.0.1.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
