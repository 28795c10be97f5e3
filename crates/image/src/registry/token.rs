//! The token service that a `Bearer` challenge points to.

use base64::Engine as _;
use serde::Deserialize;

use super::challenge::Challenge;
use super::config::is_loopback;
use super::credentials::Credentials;
use crate::error::RegistryError;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The value of the `Authorization` header that answers a challenge; `None` if it cannot be answered.
pub(crate) fn answer(
    agent: &ureq::Agent,
    challenges: &[Challenge],
    credentials: Option<&Credentials>,
    scope: &str,
) -> Result<Option<String>, RegistryError> {
    if let Some(Credentials::RegistryToken(token)) = credentials {
        return Ok(Some(format!("Bearer {token}")));
    }
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
        return fetch(agent, bearer, credentials, scope).map(|token| Some(format!("Bearer {token}")));
    }
    if challenges.iter().any(|c| c.scheme == "basic")
        && let Some(Credentials::Password(user, password)) = credentials
    {
        return Ok(Some(basic(user, password)));
    }
    Ok(None)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn fetch(
    agent: &ureq::Agent,
    bearer: &Challenge,
    credentials: Option<&Credentials>,
    scope: &str,
) -> Result<String, RegistryError> {
    let realm = bearer.get("realm").unwrap_or_default().to_owned();
    let failed = |message: String| RegistryError::Token { realm: realm.clone(), message };
    check_realm(&realm, credentials.is_some()).map_err(|m| failed(m.to_owned()))?;
    let service = bearer.get("service").unwrap_or_default();
    let response = if let Some(Credentials::IdentityToken(refresh)) = credentials {
        agent.post(&realm).send_form([
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "catamaran"),
            ("scope", scope),
            ("refresh_token", refresh.as_str()),
        ])
    } else {
        let mut request = agent.get(&realm);
        if !scope.is_empty() {
            request = request.query("scope", scope);
        }
        if !service.is_empty() {
            request = request.query("service", service);
        }
        if let Some(Credentials::Password(user, password)) = credentials {
            request = request.query("account", user).header("Authorization", basic(user, password));
        }
        request.call()
    };
    let mut response = response.map_err(|error| failed(error.to_string()))?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(1 << 20)
        .read_to_vec()
        .map_err(|error| failed(error.to_string()))?;
    if status == 401 || status == 403 {
        return Err(failed("credentials refused".to_owned()));
    }
    if status != 200 {
        return Err(failed(format!("it answered {status}")));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty() && token.bytes().all(|b| (b' '..0x7f).contains(&b)))
        .ok_or_else(|| failed("its answer holds no token".to_owned()))
}

/// A password must not go over the wire in the clear, except to this very machine.
fn check_realm(realm: &str, secret: bool) -> Result<(), &'static str> {
    if realm.starts_with("https://") {
        return Ok(());
    }
    let Some(rest) = realm.strip_prefix("http://") else {
        return Err("its address is neither http nor https");
    };
    let host = rest.split('/').next().unwrap_or(rest);
    if secret && !is_loopback(host) { Err("refusing to send credentials without TLS") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_need_tls() {
        assert!(check_realm("https://a/token", true).is_ok());
        assert!(check_realm("http://localhost:5001/token", true).is_ok());
        assert!(check_realm("http://a/token", false).is_ok());
        assert!(check_realm("http://a/token", true).is_err());
        assert!(check_realm("file:///etc/passwd", false).is_err());
    }
}
