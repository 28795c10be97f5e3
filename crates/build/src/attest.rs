//! PURE: what is attested of an image: where it comes from (SLSA's provenance) and what is in it, as in-toto
//! statements, which BuildKit keeps in a manifest of their own beside the image's in an index.

use cata_spec::Reference;
use serde_json::{Value, json};

/// The predicate of where an image comes from.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
/// The predicate of what is in it.
pub const SPDX: &str = "https://spdx.dev/Document";
/// What kind of build it was: who reads one knows what its fields mean.
const BUILD_TYPE: &str = "urn:catamaran:dockerfile-build:v1";

/// Something that a build was made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// What it is.
    pub uri: String,
    /// `sha256`, or `sha1` of a commit.
    pub algorithm: &'static str,
    /// In hexadecimal.
    pub digest: String,
}

impl Material {
    /// An image of a registry or of the store.
    #[must_use]
    pub fn image(name: &str, platform: &str, digest: &cata_spec::Digest) -> Self {
        Self { uri: image_url(name, platform), algorithm: "sha256", digest: digest.hex() }
    }

    /// A file or a repository by its address; a name and a password in it are nobody's business.
    #[must_use]
    pub fn remote(url: &str, version: &str) -> Self {
        let algorithm = if version.len() == 40 { "sha1" } else { "sha256" };
        Self { uri: without_login(url), algorithm, digest: version.to_owned() }
    }
}

/// An address without what is before an `@` in its host, and without its query: both may hold a key.
#[must_use]
pub fn without_login(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// A package URL of an image.
#[must_use]
pub fn image_url(name: &str, platform: &str) -> String {
    let platform = platform.replace('/', "%2F");
    match Reference::parse(name) {
        Ok(reference) => {
            let familiar = reference.familiar();
            let bare = familiar.split_once('@').map_or(familiar.as_str(), |(bare, _)| bare);
            let cut = bare.rfind(':').filter(|at| !bare[*at..].contains('/')).unwrap_or(bare.len());
            let (path, tag) =
                (&bare[..cut], reference.tag().map(|tag| format!("@{tag}")).unwrap_or_default());
            let digest = reference.digest().map(|d| format!("digest={d}&")).unwrap_or_default();
            format!("pkg:docker/{path}{tag}?{digest}platform={platform}")
        }
        Err(_) => format!("pkg:docker/{name}?platform={platform}"),
    }
}

/// A step, as the build knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFacts {
    /// The digest of all that its result depends on.
    pub key: String,
    /// Its line.
    pub title: String,
    /// The layer it made.
    pub layer: Option<String>,
}

/// What is known of a build. Contents of secrets are not among it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Who built, by his own word.
    pub builder: String,
    /// What it was made of.
    pub materials: Vec<Material>,
    /// The context's address, if it has one, and its commit or digest.
    pub source: Option<Material>,
    /// The Dockerfile's name.
    pub dockerfile: String,
    /// The platform that was built on.
    pub platform: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub finished: String,
    /// `mode=max`: what the command line said and how it was built, too.
    pub details: Option<Details>,
}

/// What `mode=max` adds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub args: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Names of secrets, never more.
    pub secrets: Vec<String>,
    /// Names of agents.
    pub agents: Vec<String>,
    /// The Dockerfile's text.
    pub text: String,
    /// Every step, those below before those above.
    pub steps: Vec<StepFacts>,
}

/// Where an image comes from.
#[must_use]
pub fn provenance(facts: &Facts) -> Value {
    let material = |m: &Material| json!({ "uri": m.uri, "digest": { m.algorithm: m.digest } });
    let mut source = json!({ "entryPoint": facts.dockerfile });
    if let Some(from) = &facts.source {
        source["uri"] = json!(from.uri);
        if !from.digest.is_empty() {
            source["digest"] = json!({ from.algorithm: from.digest });
        }
    }
    let mut parameters = json!({ "frontend": "dockerfile.v0" });
    if facts.source.is_none() {
        parameters["locals"] = json!([{ "name": "context" }, { "name": "dockerfile" }]);
    }
    let mut predicate = json!({
        "builder": { "id": facts.builder },
        "buildType": BUILD_TYPE,
        "materials": facts.materials.iter().map(material).collect::<Vec<_>>(),
        "invocation": {
            "configSource": source,
            "parameters": parameters,
            "environment": { "platform": facts.platform },
        },
        "metadata": {
            "buildStartedOn": facts.started,
            "buildFinishedOn": facts.finished,
            "completeness": {
                "parameters": facts.details.is_some(),
                "environment": true,
                "materials": facts.source.is_some(),
            },
            "reproducible": false,
        },
    });
    if let Some(details) = &facts.details {
        let mut args = serde_json::Map::new();
        for (prefix, pairs) in [("build-arg", &details.args), ("label", &details.labels)] {
            args.extend(pairs.iter().map(|(name, value)| (format!("{prefix}:{name}"), json!(value))));
        }
        args.extend(details.target.iter().map(|target| ("target".to_owned(), json!(target))));
        let named = |names: &[String]| names.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>();
        let parameters = &mut predicate["invocation"]["parameters"];
        parameters["args"] = Value::Object(args);
        parameters["secrets"] = json!(named(&details.secrets));
        parameters["ssh"] = json!(named(&details.agents));
        let step = |step: &StepFacts| json!({ "id": step.key, "name": step.title, "layer": step.layer });
        predicate["buildConfig"] = json!({
            "steps": details.steps.iter().map(step).collect::<Vec<_>>(),
            "source": { "language": "Dockerfile", "filename": facts.dockerfile, "text": details.text },
        });
    }
    predicate
}

/// An in-toto statement of an image with these names.
#[must_use]
pub fn statement(
    predicate_type: &str,
    names: &[String],
    digest: &cata_spec::Digest,
    predicate: &Value,
) -> Value {
    let subject = |name: &str| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    let subjects: Vec<Value> =
        if names.is_empty() { vec![subject("_")] } else { names.iter().map(|name| subject(name)).collect() };
    json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": predicate_type,
        "subject": subjects,
        "predicate": predicate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_do_not_stay_in_addresses() {
        for (url, bare) in [
            ("https://user:secret@host/a.tar?token=secret", "https://host/a.tar"),
            ("https://token@host", "https://host"),
            ("https://host/p@th", "https://host/p@th"),
            ("git@host:path", "git@host:path"),
        ] {
            assert_eq!(without_login(url), bare);
        }
    }

    #[test]
    fn images_have_package_urls() {
        let url = |name| image_url(name, "linux/arm64");
        assert_eq!(url("busybox"), "pkg:docker/busybox@latest?platform=linux%2Farm64");
        assert_eq!(url("127.0.0.1:5000/a/b:1"), "pkg:docker/127.0.0.1:5000/a/b@1?platform=linux%2Farm64");
    }

    #[test]
    fn the_least_says_nothing_of_the_command_line() {
        let mut facts = Facts { dockerfile: "Dockerfile".into(), ..Facts::default() };
        let least = provenance(&facts);
        assert!(least["invocation"]["parameters"]["args"].is_null() && least["buildConfig"].is_null());
        facts.details = Some(Details {
            args: vec![("V".into(), "1".into())],
            secrets: vec!["token".into()],
            ..Details::default()
        });
        let most = provenance(&facts);
        assert_eq!(most["invocation"]["parameters"]["args"]["build-arg:V"], "1");
        assert_eq!(most["invocation"]["parameters"]["secrets"][0]["id"], "token");
        let digest = cata_spec::Digest::from_bytes([7; 32]);
        let said = statement(PROVENANCE, &["pkg:docker/x".to_owned()], &digest, &most);
        assert_eq!(said["subject"][0]["digest"]["sha256"], "07".repeat(32));
    }
}
