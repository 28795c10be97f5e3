//! The tags that a repository has in its registry.

use std::io::Read as _;

use cata_spec::Reference;
use serde::Deserialize;
use ureq::http::{Method, StatusCode, header};

use crate::error::{Access, Error, RegistryError};
use crate::registry::Config;
use crate::registry::client::{Ask, Client};

/// Pages at most: a registry that never ends them is not followed for ever.
const PAGES: usize = 1000;
/// The longest page that is read.
const LONGEST: u64 = 4 << 20;

#[derive(Deserialize)]
struct Page {
    /// Some registries say `null` of an empty repository.
    tags: Option<Vec<String>>,
}

/// Asks the registry itself (its mirrors may lack some).
///
/// # Errors
/// No such repository; refused, unreachable; an answer that is none.
pub fn tags(config: &Config, reference: &Reference) -> Result<Vec<String>, Error> {
    let host = reference.registry();
    let endpoint = config.endpoints(host).pop().expect("the registry itself is always one of its endpoints");
    let client = Client::new(config, endpoint, reference.repository(), Access::Pull);
    let mut target = client.path("tags/list");
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let mut response = client.send(Ask::new(Method::GET, target))?;
        if response.status() != StatusCode::OK {
            return Err(client.unexpected("GET tags/list", response).into());
        }
        let next = response.headers().get(header::LINK).and_then(|value| value.to_str().ok()).and_then(next);
        let mut text = Vec::new();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Unreachable {
            registry: host.to_owned(),
            source,
        };
        let body = response.body_mut().as_reader().take(LONGEST).read_to_end(&mut text);
        body.map_err(|error| failed(error.into()))?;
        let page: Page = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        found.extend(page.tags.unwrap_or_default());
        match next {
            Some(path) => target = path,
            None => break,
        }
    }
    Ok(found)
}

/// PURE: the path in `</v2/name/tags/list?last=x>; rel="next"`.
fn next(link: &str) -> Option<String> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    (rest.contains("next") && address.starts_with('/')).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn next_page_is_a_path_of_the_same_registry() {
        assert_eq!(next("</v2/a/tags/list?last=b>; rel=\"next\"").as_deref(), Some("/v2/a/tags/list?last=b"));
        for other in ["", "<x", "<https://elsewhere/v2>; rel=\"next\"", "</v2/a>; rel=\"first\""] {
            assert_eq!(next(other), None, "{other}");
        }
    }
}
