//! Manifests of a registry: found, verified, and for an index the right one chosen.

use cata_spec::image::{Descriptor, Index, Manifest, ManifestDocument, media_type};
use cata_spec::{Digest, Platform, Reference};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::client::{Ask, Client};
use crate::error::RegistryError;
use crate::store::sha256;

/// No honest manifest is larger.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// No honest configuration is larger.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Everything this engine can read, the newest first.
fn accept() -> String {
    [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST]
        .join(", ")
}

/// A manifest as the registry has it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// What the reference leads to: an index's digest if it is one.
    pub(crate) top: Digest,
    /// The image's manifest.
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

/// The digest that a reference has now, without fetching it; `None` if the registry does not say.
pub(crate) fn head(client: &Client, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
    let path = client.path(&format!("manifests/{}", reference.manifest_selector()));
    let response = client.send(Ask::new(Method::HEAD, path).header("Accept", accept()))?;
    Ok(if response.status() == StatusCode::OK { told_digest(&response) } else { None })
}

/// What a reference leads to.
pub(crate) enum Top {
    /// An image that stands alone.
    Image,
    /// Several.
    Index { digest: Digest, bytes: Vec<u8>, index: Index },
}

/// Fetches what `reference` leads to, whatever platforms it has.
pub(crate) fn fetch_top(client: &Client, reference: &Reference) -> Result<Top, RegistryError> {
    let (digest, bytes, kind) = get(client, reference, &reference.manifest_selector(), reference.digest())?;
    let unusable = |source| RegistryError::Manifest { reference: reference.familiar(), source };
    Ok(match ManifestDocument::parse(&bytes, kind.as_deref()).map_err(unusable)? {
        ManifestDocument::Image(_) => Top::Image,
        ManifestDocument::Index(index) => Top::Index { digest, bytes, index },
    })
}

/// Fetches one member of an index; `reference` has its digest.
pub(crate) fn fetch_member(
    client: &Client,
    reference: &Reference,
    member: &Descriptor,
) -> Result<Found, RegistryError> {
    let unusable = |source| RegistryError::Manifest { reference: reference.familiar(), source };
    let digest = member.digest;
    let (_, bytes, kind) = get(client, reference, &digest.to_string(), Some(digest))?;
    match ManifestDocument::parse(&bytes, kind.as_deref().or(Some(&member.media_type))).map_err(unusable)? {
        ManifestDocument::Image(manifest) => Ok(found(digest, digest, bytes, kind, manifest)),
        ManifestDocument::Index(_) => {
            let nested = "an index within an index".to_owned();
            Err(unusable(cata_spec::image::ManifestError::MediaType(nested)))
        }
    }
}

/// Fetches the manifest of `reference` for `platform`.
pub(crate) fn fetch(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<Found, RegistryError> {
    let (top, bytes, kind) = get(client, reference, &reference.manifest_selector(), reference.digest())?;
    let unusable = |source| RegistryError::Manifest { reference: reference.familiar(), source };
    match ManifestDocument::parse(&bytes, kind.as_deref()).map_err(unusable)? {
        ManifestDocument::Image(manifest) => Ok(found(top, top, bytes, kind, manifest)),
        ManifestDocument::Index(index) => {
            let chosen = choose(&index, platform).ok_or_else(|| RegistryError::NoPlatform {
                reference: reference.familiar(),
                wanted: platform.clone(),
                offered: offered(&index),
            })?;
            Ok(Found { top, ..fetch_member(client, reference, chosen)? })
        }
    }
}

fn found(top: Digest, digest: Digest, bytes: Vec<u8>, kind: Option<String>, manifest: Manifest) -> Found {
    let known = |t: &String| matches!(t.as_str(), media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
    let media_type = manifest
        .media_type
        .clone()
        .filter(known)
        .or(kind.filter(known))
        .unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    Found { top, digest, media_type, bytes, manifest }
}

/// The entry for `platform`; attestations and the like (`unknown/unknown`) never fit.
fn choose<'i>(index: &'i Index, platform: &Platform) -> Option<&'i Descriptor> {
    let unknown = Platform::default();
    let images: Vec<&Descriptor> =
        index.manifests.iter().filter(|m| !cata_spec::image::is_index(&m.media_type)).collect();
    // An index without platforms that has one entry means that entry.
    if let [only] = images.as_slice()
        && only.platform.is_none()
    {
        return Some(only);
    }
    platform.choose(images.iter().map(|m| m.platform.as_ref().unwrap_or(&unknown))).map(|at| images[at])
}

fn offered(index: &Index) -> String {
    let mut platforms: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|m| m.platform.as_ref())
        .filter(|p| p.os != "unknown" && !p.os.is_empty())
        .map(|p| p.clone().normalised().to_string())
        .collect();
    platforms.sort();
    platforms.dedup();
    if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") }
}

fn get(
    client: &Client,
    reference: &Reference,
    selector: &str,
    expected: Option<Digest>,
) -> Result<(Digest, Vec<u8>, Option<String>), RegistryError> {
    let path = client.path(&format!("manifests/{selector}"));
    let response = client.send(Ask::new(Method::GET, path.as_str()).header("Accept", accept()))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(RegistryError::ManifestNotFound(reference.familiar())),
        StatusCode::FORBIDDEN => return Err(client.forbidden()),
        _ => return Err(client.unexpected(&format!("GET {path}"), response)),
    }
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
    let told = told_digest(&response);
    let bytes = read_limited(client, response, "manifest", reference, MANIFEST_LIMIT)?;
    let actual = sha256(&bytes);
    // What was asked for by digest must be it; by tag, the registry's own word must be true.
    if let Some(expected) = expected.or(told)
        && expected != actual
    {
        return Err(RegistryError::DigestMismatch {
            registry: client.host().to_owned(),
            what: "manifest",
            expected,
            actual,
        });
    }
    Ok((actual, bytes, kind))
}

fn told_digest(response: &Response<Body>) -> Option<Digest> {
    Digest::parse(response.headers().get("docker-content-digest")?.to_str().ok()?).ok()
}

/// Fetches the image configuration.
pub(crate) fn fetch_config(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, RegistryError> {
    let path = client.path(&format!("blobs/{}", descriptor.digest));
    let response = client.send(Ask::new(Method::GET, path.as_str()))?;
    if response.status() != StatusCode::OK {
        return Err(client.unexpected(&format!("GET {path}"), response));
    }
    let bytes = read_limited(client, response, "configuration", reference, CONFIG_LIMIT)?;
    let actual = sha256(&bytes);
    if actual != descriptor.digest {
        return Err(RegistryError::DigestMismatch {
            registry: client.host().to_owned(),
            what: "configuration",
            expected: descriptor.digest,
            actual,
        });
    }
    Ok(bytes)
}

fn read_limited(
    client: &Client,
    mut response: Response<Body>,
    what: &'static str,
    reference: &Reference,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    response.body_mut().with_config().limit(limit).read_to_vec().map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => {
            RegistryError::TooLarge { what, reference: reference.familiar(), limit }
        }
        error => client.unreachable(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: Option<&str>) -> Descriptor {
        let mut made = Descriptor::new(media_type::OCI_MANIFEST, Digest::from_bytes([0; 32]), 1);
        made.platform = platform.map(|p| Platform::parse(p).unwrap());
        made
    }

    fn index(entries: Vec<Descriptor>) -> Index {
        Index { schema_version: 2, media_type: None, manifests: entries, annotations: Default::default() }
    }

    #[test]
    fn the_offer_is_listed_without_attestations() {
        let mut attestation = entry(None);
        attestation.platform =
            Some(Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() });
        let index = index(vec![entry(Some("linux/arm64/v8")), attestation, entry(Some("linux/amd64"))]);
        assert_eq!(offered(&index), "linux/amd64, linux/arm64");
        let wanted = Platform::parse("linux/s390x").unwrap();
        assert!(choose(&index, &wanted).is_none());
        assert!(choose(&index, &Platform::parse("linux/arm64").unwrap()).is_some());
    }

    #[test]
    fn a_lone_entry_without_platform_is_meant() {
        assert!(choose(&index(vec![entry(None)]), &Platform::host()).is_some());
        assert!(choose(&index(vec![entry(None), entry(None)]), &Platform::host()).is_none());
    }
}
