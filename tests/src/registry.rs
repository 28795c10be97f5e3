//! A real registry on loopback: Debian's `docker-registry`, plain or with TLS and a password.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::command::{PATIENCE, Run, Running, eventually};
use crate::world::World;

/// A running registry; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:port`.
    pub address: String,
    /// Where it keeps what is pushed.
    pub storage: PathBuf,
    /// The private authority that signed its certificate, if it speaks TLS.
    pub authority: Option<PathBuf>,
    process: Running,
}

/// How the registry is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// The port it listens on; 0 means 5000.
    pub port: u16,
    /// HTTPS with a certificate for 127.0.0.1 signed by an authority made for it.
    pub tls: bool,
    /// The one user and the password it lets in.
    pub login: Option<(&'a str, &'a str)>,
    /// Where it keeps what is pushed: another registry's storage, to serve the same again.
    pub storage: Option<&'a Path>,
}

impl Registry {
    /// Starts a registry and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(world: &World, settings: Settings<'_>) -> Self {
        let port = if settings.port == 0 { 5000 } else { settings.port };
        let address = format!("127.0.0.1:{port}");
        let home = world.scratch().join(format!("registry-{port}"));
        fs::create_dir_all(&home).expect("the scratch directory is ours");
        let storage = settings.storage.map_or_else(|| home.join("storage"), Path::to_owned);
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        let mut authority = None;
        if settings.tls {
            let ca = certificate(&home);
            // Writing to a String cannot fail.
            let _ = writeln!(
                config,
                "  tls: {{certificate: {0}/server.pem, key: {0}/server.key}}",
                home.display()
            );
            authority = Some(ca);
        }
        if let Some((user, password)) = settings.login {
            let line = Run::new("htpasswd").args(["-Bbn", user, password]).done().text();
            let file = home.join("htpasswd");
            fs::write(&file, line + "\n").expect("the scratch directory is ours");
            let _ = write!(config, "auth:\n  htpasswd: {{realm: test, path: {}}}\n", file.display());
        }
        let file = home.join("config.yml");
        fs::write(&file, config).expect("the scratch directory is ours");
        let mut process = Run::new("docker-registry").arg("serve").arg(&file).start();
        eventually("the registry listens", PATIENCE, || {
            assert!(process.poll().is_none(), "the registry ended: {}", process.stderr());
            TcpStream::connect(&address).ok()
        });
        Self { address, storage, authority, process }
    }

    /// The name of an image here.
    #[must_use]
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// What it complained so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The file of a blob (`sha256:…`), to damage it.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

/// Makes an authority and a certificate for 127.0.0.1 in `dir`; returns the authority's.
fn certificate(dir: &Path) -> PathBuf {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let openssl = |args: &[&str]| {
        let _ = Run::new("openssl").args(args).done().ok();
    };
    let (ca, ca_key, key, request, signed) =
        (path("ca.pem"), path("ca.key"), path("server.key"), path("server.csr"), path("server.pem"));
    let extensions = path("extensions");
    fs::write(&extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        .expect("the scratch directory is ours");
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let mut authority = vec!["req", "-x509", "-subj", "/CN=Test Authority", "-days", "2"];
    authority.extend(ec);
    authority.extend(["-keyout", &ca_key, "-out", &ca]);
    openssl(&authority);
    let mut server = vec!["req", "-subj", "/CN=127.0.0.1"];
    server.extend(ec);
    server.extend(["-keyout", &key, "-out", &request]);
    openssl(&server);
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &extensions,
        "-out",
        &signed,
    ]);
    PathBuf::from(ca)
}
