//! HTTP and TLS below the client: one agent for each endpoint, with its trust and its deadlines.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::config::{Endpoint, is_loopback};
use crate::error::RegistryError;

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(15);

/// An HTTP agent for the endpoint. `stall` ends a connection on which nothing moves for so long.
pub(crate) fn agent(endpoint: &Endpoint, plain: bool, stall: Duration) -> Result<ureq::Agent, RegistryError> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // Redirects are followed by the client, which knows where credentials may go.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("catamaran/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .timeout_recv_response(Some(stall.max(Duration::from_secs(60))))
        .max_idle_connections_per_host(8)
        .input_buffer_size(256 * 1024)
        .output_buffer_size(256 * 1024);
    if is_loopback(&endpoint.address) {
        config = config.proxy(None);
    }
    if !plain {
        config = config.tls_config(tls(endpoint)?);
    }
    Ok(config.build().new_agent())
}

/// An HTTP agent for any address: redirects are followed, for there is nothing secret to carry along.
pub(crate) fn web_agent(url: &str, stall: Duration) -> Result<ureq::Agent, RegistryError> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(10)
        .user_agent(concat!("catamaran/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(stall))
        .timeout_recv_response(Some(stall))
        .input_buffer_size(256 * 1024);
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    if is_loopback(host) {
        config = config.proxy(None);
    }
    let system = rustls_native_certs::load_native_certs();
    let roots: Vec<Certificate<'static>> = system
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
        .collect();
    let roots = if roots.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(roots)) };
    if url.starts_with("https:") {
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

fn tls(endpoint: &Endpoint) -> Result<TlsConfig, RegistryError> {
    let mut own: Vec<Certificate<'static>> = Vec::new();
    if let Some(path) = &endpoint.ca {
        read_certificates(path, &mut own)?;
    }
    if let Some(entries) = endpoint.certs.as_ref().and_then(|dir| std::fs::read_dir(dir).ok()) {
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "crt") {
                read_certificates(&path, &mut own)?;
            }
        }
    }
    let client = endpoint.certs.as_deref().map(client_certificate).transpose()?.flatten();
    let system = rustls_native_certs::load_native_certs();
    let mut roots: Vec<Certificate<'static>> = system
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
        .collect();
    let roots = if roots.is_empty() && own.is_empty() {
        RootCerts::WebPki
    } else {
        roots.extend(own);
        RootCerts::Specific(Arc::new(roots))
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(endpoint.unverified)
        .build())
}

/// Docker's way to show a certificate of one's own: `NAME.cert` and `NAME.key` in the host's directory. The
/// first pair by name is shown.
fn client_certificate(dir: &Path) -> Result<Option<ClientCert>, RegistryError> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(None) };
    let paths = entries.flatten().map(|entry| entry.path());
    let Some(cert) = paths.filter(|path| path.extension().is_some_and(|e| e == "cert")).min() else {
        return Ok(None);
    };
    let mut chain = Vec::new();
    read_certificates(&cert, &mut chain)?;
    let path = cert.with_extension("key");
    let wrong = |message: String| RegistryError::Config { path: path.clone(), message };
    let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

fn read_certificates(path: &Path, into: &mut Vec<Certificate<'static>>) -> Result<(), RegistryError> {
    let wrong = |message: String| RegistryError::Config { path: path.to_owned(), message };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let before = into.len();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            into.push(certificate);
        }
    }
    if into.len() == before { Err(wrong("holds no certificate".to_owned())) } else { Ok(()) }
}
