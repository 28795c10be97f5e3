//! `build` of a service, as what `cata build` is told.

use crate::error::Result;
use crate::fields::{Fields, items, text, wrong};
use crate::merge::pairs;
use crate::node::Value;
use crate::project::Around;

/// How a service's image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// A directory, absolute, or an address.
    pub context: String,
    /// Flags of `build`.
    pub flags: Vec<String>,
    /// `dockerfile_inline`: what is read in place of a file.
    pub inline: Option<String>,
    /// Secrets of the project, by key, and what steps call them.
    pub secrets: Vec<(String, String)>,
}

const TEXTS: &[(&str, &str)] = &[
    ("target", "--target"),
    ("network", "--network"),
    ("shm_size", "--shm-size"),
    ("provenance", "--provenance"),
    ("sbom", "--sbom"),
];
const FLAGS: &[(&str, &str)] = &[("no_cache", "--no-cache"), ("pull", "--pull")];
const LISTS: &[(&str, &str)] = &[
    ("cache_from", "--cache-from"),
    ("cache_to", "--cache-to"),
    ("platforms", "--platform"),
    ("tags", "--tag"),
    ("ssh", "--ssh"),
    ("extra_hosts", "--add-host"),
    ("entitlements", "--allow"),
];
const UNSUPPORTED: &[&str] = &["isolation", "privileged"];

pub(crate) fn read(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<Option<Build>> {
    let name = fields.name("build");
    let Some(node) = fields.take("build") else { return Ok(None) };
    let place = |text: &str| {
        let afar = text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/");
        if afar { text.to_owned() } else { around.path(text).to_string_lossy().into_owned() }
    };
    let Value::Map(_) = node.value else {
        let context = place(&text(node, &name)?);
        let build = Build { context, flags: Vec::new(), inline: None, secrets: Vec::new() };
        return Ok(Some(build));
    };
    let mut build = Fields::of(node, name)?;
    let context = place(&build.text("context")?.unwrap_or_else(|| ".".to_owned()));
    let mut flags = Vec::new();
    let file = build.take("dockerfile");
    let inline = build.text("dockerfile_inline")?;
    if let Some(node) = file {
        if inline.is_some() {
            return Err(wrong(node, &build.name("dockerfile"), "absent beside dockerfile_inline"));
        }
        // Beside the context, as Docker's clients have it.
        let file = text(node, &build.name("dockerfile"))?;
        let beside = if file.starts_with('/') || context.contains("://") {
            file
        } else {
            format!("{}/{file}", context.trim_end_matches('/'))
        };
        flags.push(format!("--file={beside}"));
    }
    for (key, flag) in TEXTS {
        flags.extend(build.text(key)?.map(|text| format!("{flag}={text}")));
    }
    for (key, flag) in FLAGS {
        flags.extend(build.flag(key)?.then(|| (*flag).to_owned()));
    }
    for (key, flag) in LISTS {
        flags.extend(build.texts(key)?.into_iter().map(|text| format!("{flag}={text}")));
    }
    for (name, value) in build.pairs("args")? {
        // A name alone takes the caller's; none: the Dockerfile's own.
        if let Some(value) = value.or_else(|| (around.variable)(&name)) {
            flags.push(format!("--build-arg={name}={value}"));
        }
    }
    for (name, value) in build.pairs("labels")? {
        flags.push(format!("--label={name}={}", value.unwrap_or_default()));
    }
    let contexts = build.take("additional_contexts").cloned().map(pairs).transpose()?;
    if let Some(Value::Map(entries)) = contexts.map(|node| node.value) {
        for (key, node) in entries {
            let address = text(&node, &build.name("additional_contexts"))?;
            let whole = address.contains("://");
            let address = if whole { address } else { place(&address) };
            flags.push(format!("--build-context={key}={address}"));
        }
    }
    crate::flags::ulimits(&mut build, &mut flags)?;
    let secrets = secrets(&mut build)?;
    build.finish(UNSUPPORTED)?;
    Ok(Some(Build { context, flags, inline, secrets }))
}

/// A list of keys, or of mappings with a key and a name.
fn secrets(build: &mut Fields<'_>) -> Result<Vec<(String, String)>> {
    let name = build.name("secrets");
    let mut all = Vec::new();
    for item in build.take("secrets").map(items).unwrap_or_default() {
        let Value::Map(_) = item.value else {
            let key = text(item, &name)?;
            all.push((key.clone(), key));
            continue;
        };
        let mut secret = Fields::of(item, name.clone())?;
        let key = secret.text("source")?.ok_or_else(|| wrong(item, &name, "a mapping with a source"))?;
        let called = secret.text("target")?.unwrap_or_else(|| key.clone());
        secret.finish(&["uid", "gid", "mode"])?;
        all.push((key, called));
    }
    Ok(all)
}
