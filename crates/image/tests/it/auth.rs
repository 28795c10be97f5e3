//! Logins: basic, token, TLS with a private CA.

use std::path::Path;

use base64::Engine as _;
use cata_image::registry::config::Registry as Known;
use cata_image::{Error, Kind, PullRequest, RegistryError, Silent, pull, push};

use crate::fixture::{HTPASSWD, Place, Registry, name, ready, run, whole};
use crate::proxy::{Action, Proxy};

fn login(path: &Path, host: &str, user: &str, password: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    std::fs::write(path, format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)).unwrap();
}

#[test]
fn basic_authentication() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let extra = "auth:\n  htpasswd:\n    realm: test\n    path: @DIR@/htpasswd\n";
    let registry = Registry::with(extra, |dir| std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap());
    let (here, there) = (Place::new(), Place::new());
    let full = registry.name("secret:1");
    let made = here.image(&full, &[("x", "y")], 0);
    let mut config = here.config();
    let file = here.dir.path().join("config.json");
    config.docker_config = Some(file.clone());
    let wish = PullRequest { reference: name(&full), platform: None };

    let error = pull(&there.store, &config, &wish, &Silent).unwrap_err();
    assert!(matches!(error, Error::Registry(RegistryError::Denied { .. })), "{error}");
    login(&file, &format!("127.0.0.1:{}", registry.port), "user", "wrong");
    let error = pull(&there.store, &config, &wish, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized, "{error}");
    login(&file, &format!("http://127.0.0.1:{}/v2/", registry.port), "user", "secret");
    push(&here.store, &config, &whole(&full), &Silent).unwrap();
    assert_eq!(pull(&there.store, &config, &wish, &Silent).unwrap().image.id, made.id);
}

#[test]
fn token_authentication() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let (registry, here, there) = (Registry::start(), Place::new(), Place::new());
    let full = registry.name("secret:1");
    let made = here.image(&full, &[("x", "y")], 0);
    push(&here.store, &here.config(), &whole(&full), &Silent).unwrap();
    // Stands before the registry and asks for a token that its own token service gives to `user:secret`.
    let basic = base64::engine::general_purpose::STANDARD.encode("user:secret").to_ascii_lowercase();
    let proxy = Proxy::start(registry.port, move |head, _| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let answer = |status: &str, extra: String, body: &str| {
            Action::Answer(format!(
                "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ))
        };
        if head.starts_with("get /token") {
            let scope = head.contains("scope=repository%3asecret%3apull")
                || head.contains("scope=repository:secret:pull");
            if head.contains(&format!("authorization: basic {basic}"))
                && scope
                && head.contains("service=reg")
            {
                return answer("200 OK", String::new(), r#"{"token":"good"}"#);
            }
            return answer("401 Unauthorized", String::new(), "{}");
        }
        if head.contains("authorization: bearer good") {
            return Action::Forward;
        }
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"reg\"\r\n");
        answer("401 Unauthorized", challenge, "{}")
    });
    let mut config = there.config();
    let file = there.dir.path().join("config.json");
    config.docker_config = Some(file.clone());
    let wish = PullRequest { reference: name(&proxy.name("secret:1")), platform: None };
    login(&file, &format!("127.0.0.1:{}", proxy.port), "user", "wrong");
    let error = pull(&there.store, &config, &wish, &Silent).unwrap_err();
    assert!(error.to_string().contains("credentials refused"), "{error}");
    login(&file, &format!("127.0.0.1:{}", proxy.port), "user", "secret");
    assert_eq!(pull(&there.store, &config, &wish, &Silent).unwrap().image.id, made.id);
}

const TLS: &str = "  tls:\n    certificate: @DIR@/server.crt\n    key: @DIR@/server.key\n";

/// An authority, and a certificate for loopback that it signed.
fn authority() -> tempfile::TempDir {
    let keys = tempfile::tempdir().unwrap();
    let at = |file: &str| keys.path().join(file).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &at("ca.key"),
            "-out",
            &at("ca.crt"),
            "-subj",
            "/CN=test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ],
    );
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &at("server.key"),
            "-out",
            &at("server.crt"),
            "-subj",
            "/CN=registry",
            "-CA",
            &at("ca.crt"),
            "-CAkey",
            &at("ca.key"),
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ],
    );
    keys
}

#[test]
fn tls_with_a_private_authority() {
    if !ready(&["docker-registry", "openssl"]) {
        return;
    }
    let keys = authority();
    let registry = Registry::with(TLS, |dir| {
        for file in ["server.crt", "server.key"] {
            std::fs::copy(keys.path().join(file), dir.join(file)).unwrap();
        }
    });
    let host = format!("127.0.0.1:{}", registry.port);
    let (here, there) = (Place::new(), Place::new());
    let full = registry.name("tls:1");
    let made = here.image(&full, &[("x", "y")], 100_000);
    let wish = PullRequest { reference: name(&full), platform: None };

    let error = push(&here.store, &here.config(), &whole(&full), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "an unknown authority: {error}");
    let mut trusting = here.config();
    trusting.set(&host, Known { ca: Some(keys.path().join("ca.crt")), ..Known::default() });
    push(&here.store, &trusting, &whole(&full), &Silent).unwrap();

    let certs = there.dir.path().join("certs.d");
    std::fs::create_dir_all(certs.join(&host)).unwrap();
    std::fs::copy(keys.path().join("ca.crt"), certs.join(&host).join("ca.crt")).unwrap();
    let mut as_docker = there.config();
    as_docker.certs_dir = Some(certs);
    assert_eq!(pull(&there.store, &as_docker, &wish, &Silent).unwrap().image.id, made.id);

    let elsewhere = Place::new();
    let mut careless = elsewhere.config();
    careless.set(&host, Known { insecure: true, ..Known::default() });
    assert_eq!(pull(&elsewhere.store, &careless, &wish, &Silent).unwrap().image.id, made.id);
}

/// Docker's way: `client.cert` and `client.key` beside the authority's certificate.
#[test]
fn tls_with_a_certificate_of_our_own() {
    if !ready(&["docker-registry", "openssl"]) {
        return;
    }
    let keys = authority();
    let demanding = format!("{TLS}    clientcas: [@DIR@/ca.crt]\n");
    let registry = Registry::with(&demanding, |dir| {
        for file in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(keys.path().join(file), dir.join(file)).unwrap();
        }
    });
    let (here, host, full) = (Place::new(), format!("127.0.0.1:{}", registry.port), registry.name("tls:2"));
    let mut as_docker = here.config();
    as_docker.certs_dir = Some(here.dir.path().join("certs.d"));
    let certs = here.dir.path().join("certs.d").join(&host);
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(keys.path().join("ca.crt"), certs.join("ca.crt")).unwrap();
    here.image(&full, &[("x", "y")], 0);
    let sent = whole(&full);
    let error = push(&here.store, &as_docker, &sent, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "no certificate shown: {error}");
    std::fs::copy(keys.path().join("server.crt"), certs.join("client.cert")).unwrap();
    let error = push(&here.store, &as_docker, &sent, &Silent).unwrap_err();
    assert!(error.to_string().contains("client.key"), "a certificate without its key: {error}");
    std::fs::copy(keys.path().join("server.key"), certs.join("client.key")).unwrap();
    push(&here.store, &as_docker, &sent, &Silent).unwrap();
}
