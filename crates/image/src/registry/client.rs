//! One registry endpoint and one repository: requests with authentication, redirects and clear failures.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::http::{Method, Request, Response, StatusCode, Uri, header};
use ureq::{Body, SendBody};

use super::config::{Config, Endpoint};
use super::{challenge, credentials, token, transport};
use crate::error::{Access, RegistryError};

/// Redirects followed in a row.
const REDIRECTS_MAX: usize = 5;

/// Speaks to one endpoint about one repository. Shared by threads.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    repository: String,
    access: Access,
    plain: AtomicBool,
    agents: [Mutex<Option<ureq::Agent>>; 2],
    authorization: Mutex<Option<String>>,
    login: Login,
    stall: Duration,
}

/// Where credentials come from.
#[derive(Debug)]
enum Login {
    /// The login file, or Docker's if none is told.
    File(Option<std::path::PathBuf>),
    /// These are tried.
    Given(credentials::Credentials),
}

/// What is sent.
pub(crate) enum Payload<'p> {
    None,
    Bytes(&'p [u8]),
    /// So many bytes of a stream; it cannot be sent twice.
    Stream(&'p mut dyn Read, u64),
}

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// A path of the registry, or a whole address that it gave.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) payload: Payload<'a>,
}

impl Ask<'_> {
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), payload: Payload::None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    /// For one repository, to do `access` with.
    pub(crate) fn new(config: &Config, endpoint: Endpoint, repository: &str, access: Access) -> Self {
        Self {
            access,
            repository: repository.to_owned(),
            plain: AtomicBool::new(endpoint.plain),
            agents: [Mutex::new(None), Mutex::new(None)],
            authorization: Mutex::new(None),
            login: match config.logins.get(&endpoint.host) {
                Some(given) => Login::Given(given.clone()),
                None => Login::File(config.docker_config.clone()),
            },
            stall: config.stall_timeout,
            endpoint,
        }
    }

    /// For no repository, with credentials that are to be tried.
    pub(crate) fn with_login(config: &Config, endpoint: Endpoint, login: credentials::Credentials) -> Self {
        Self { login: Login::Given(login), ..Self::new(config, endpoint, "", Access::Pull) }
    }

    /// The registry as references name it.
    pub(crate) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// `/v2/<repository>/<rest>`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    /// The endpoint's address, for answers that give relative ones.
    pub(crate) fn base(&self) -> String {
        self.address("/", self.plain.load(Ordering::Relaxed))
    }

    /// Sends a request, answers a challenge once, follows redirects of reads. The answer's status is the
    /// caller's to judge, except 401.
    pub(crate) fn send(&self, ask: Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let Ask { method, target, headers, mut payload } = ask;
        let repeatable = !matches!(payload, Payload::Stream(..));
        let mut challenged = false;
        loop {
            let plain = self.plain.load(Ordering::Relaxed);
            let address = self.address(&target, plain);
            let authorization = self.is_own(&address).then(|| self.authorization()).flatten();
            let mut response =
                self.follow(&method, &address, &headers, authorization.as_deref(), &mut payload)?;
            match response.status() {
                StatusCode::UNAUTHORIZED if challenged || !repeatable => {
                    return Err(self.refused(authorization.is_some()));
                }
                StatusCode::UNAUTHORIZED => {
                    challenged = true;
                    if !self.answer(&response)? {
                        return Err(self.refused(authorization.is_some()));
                    }
                }
                StatusCode::BAD_REQUEST if plain && repeatable && !self.endpoint.fixed_scheme => {
                    let text = body_text(&mut response);
                    if !text.contains("HTTPS server") {
                        return Err(self.status(&method, &target, 400, &text));
                    }
                    self.plain.store(false, Ordering::Relaxed);
                }
                _ => return Ok(response),
            }
        }
    }

    /// An error for an answer that is not what was hoped for, with the registry's own words.
    pub(crate) fn unexpected(&self, request: &str, mut response: Response<Body>) -> RegistryError {
        let status = response.status().as_u16();
        let text = body_text(&mut response);
        RegistryError::Status {
            registry: self.host().to_owned(),
            request: request.to_owned(),
            status,
            message: words(&text),
        }
    }

    fn status(&self, method: &Method, target: &str, status: u16, text: &str) -> RegistryError {
        RegistryError::Status {
            registry: self.host().to_owned(),
            request: format!("{method} {target}"),
            status,
            message: words(text),
        }
    }

    pub(crate) fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> RegistryError {
        RegistryError::Unreachable { registry: self.host().to_owned(), source: source.into() }
    }

    fn refused(&self, with_credentials: bool) -> RegistryError {
        let (action, registry, repository) = (self.access, self.host().to_owned(), self.repository.clone());
        if with_credentials {
            RegistryError::Unauthorized { action, registry, repository }
        } else {
            let name = if registry == "docker.io" {
                repository.strip_prefix("library/").unwrap_or(&repository).to_owned()
            } else {
                format!("{registry}/{repository}")
            };
            RegistryError::Denied { action, name }
        }
    }

    /// A 403: whoever asks is known, and may not.
    pub(crate) fn forbidden(&self) -> RegistryError {
        self.refused(false)
    }

    /// One request and the redirects it leads to. Only the registry itself sees the authorization.
    fn follow(
        &self,
        method: &Method,
        address: &str,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
        payload: &mut Payload<'_>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut address = address.to_owned();
        let reading = matches!(*method, Method::GET | Method::HEAD);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::builder().method(method.clone()).uri(&address);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(value) = authorization.filter(|_| self.is_own(&address)) {
                request = request.header(header::AUTHORIZATION, value);
            }
            let agent = self.agent(address.starts_with("http://"))?;
            let response = match payload {
                Payload::None => run(&agent, request, SendBody::none()),
                Payload::Bytes(bytes) => {
                    let mut bytes: &[u8] = bytes;
                    let length = bytes.len();
                    run(
                        &agent,
                        request.header(header::CONTENT_LENGTH, length),
                        SendBody::from_reader(&mut bytes),
                    )
                }
                Payload::Stream(stream, size) => {
                    run(&agent, request.header(header::CONTENT_LENGTH, *size), SendBody::from_reader(*stream))
                }
            };
            let response = response.map_err(|error| self.unreachable(error))?;
            if !(reading && response.status().is_redirection()) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location else { return Ok(response) };
            let next = join(&address, location)
                .ok_or_else(|| self.unreachable(format!("bad redirect to `{location}`")))?;
            if address.starts_with("https://") && next.starts_with("http://") {
                return Err(self.unreachable(format!("refusing a redirect from https to `{next}`")));
            }
            address = next;
        }
        Err(self.unreachable("too many redirects"))
    }

    /// Gets what a challenge asks for; false if there is nothing to answer with.
    fn answer(&self, response: &Response<Body>) -> Result<bool, RegistryError> {
        let challenges: Vec<_> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let login = match &self.login {
            Login::File(path) => credentials::lookup(path.as_deref(), self.host())?,
            Login::Given(credentials) => Some(credentials.clone()),
        };
        // The token service is another server: it gets an agent that trusts the same certificates.
        let plain =
            challenges.iter().filter_map(|c| c.get("realm")).any(|realm| realm.starts_with("http://"));
        let agent = self.agent(plain)?;
        let scope = match self.repository.as_str() {
            "" => String::new(),
            repository => format!("repository:{repository}:{}", self.access.scope()),
        };
        let value = token::answer(&agent, &challenges, login.as_ref(), &scope)?;
        let answered = value.is_some();
        *lock(&self.authorization) = value;
        Ok(answered)
    }

    fn authorization(&self) -> Option<String> {
        lock(&self.authorization).clone()
    }

    fn address(&self, target: &str, plain: bool) -> String {
        if target.starts_with('/') {
            format!("{}://{}{target}", if plain { "http" } else { "https" }, self.endpoint.address)
        } else {
            target.to_owned()
        }
    }

    fn is_own(&self, address: &str) -> bool {
        let own = |scheme: &str| {
            address
                .strip_prefix(scheme)
                .is_some_and(|rest| rest.split(['/', '?']).next() == Some(&self.endpoint.address))
        };
        own("https://") || (self.plain.load(Ordering::Relaxed) && own("http://"))
    }

    fn agent(&self, plain: bool) -> Result<ureq::Agent, RegistryError> {
        let mut slot = lock(&self.agents[usize::from(plain)]);
        if slot.is_none() {
            *slot = Some(transport::agent(&self.endpoint, plain, self.stall)?);
        }
        Ok(slot.clone().expect("filled just above"))
    }
}

fn run(
    agent: &ureq::Agent,
    request: ureq::http::request::Builder,
    body: SendBody<'_>,
) -> Result<Response<Body>, ureq::Error> {
    agent.run(request.body(body)?)
}

/// A poisoned lock only says that another thread died; what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A redirect's target, relative ones included.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse::<Uri>().is_ok().then(|| location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(other) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{other}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let path = path.split('?').next().unwrap_or(path);
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    Some(format!("{scheme}://{authority}/{dir}{}{location}", if dir.is_empty() { "" } else { "/" }))
}

fn body_text(response: &mut Response<Body>) -> String {
    let bytes = response.body_mut().with_config().limit(64 * 1024).read_to_vec().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The registry's own words out of its error document, on one line.
fn words(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let said = match serde_json::from_str::<Document>(text) {
        Ok(document) => {
            let items: Vec<String> = document
                .errors
                .iter()
                .map(|item| if item.message.is_empty() { item.code.clone() } else { item.message.clone() })
                .collect();
            items.join(", ")
        }
        Err(_) => text.trim().chars().take(200).collect(),
    };
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        assert_eq!(join("http://a/v2/x", "/y?z").as_deref(), Some("http://a/y?z"));
        assert_eq!(join("https://a:1/v2/x/b", "c").as_deref(), Some("https://a:1/v2/x/c"));
        assert_eq!(join("https://a/v2", "//b/c").as_deref(), Some("https://b/c"));
        assert_eq!(join("https://a", "https://b/c").as_deref(), Some("https://b/c"));
    }

    #[test]
    fn the_registrys_words_are_kept_on_one_line() {
        assert_eq!(words(r#"{"errors":[{"code":"DENIED","message":"no\nway"},{"code":"X"}]}"#), "no way, X");
        assert_eq!(words("  oops\n"), "oops");
    }
}
