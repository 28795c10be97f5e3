//! PURE: the name of what a step makes: a digest of all that its result depends on, and of nothing else.
//!
//! Configuration is not in it: a changed LABEL makes no RUN run again. What a RUN sees of it (environment,
//! user, working directory) is.

use cata_spec::Digest;

use crate::metadata::{Mount, MountKind};
use crate::stage::{CopySource, CopyStep, RunStep};

/// Changes when steps of the same key would be performed otherwise.
const VERSION: &str = "cata-build-1";

/// A state of a file system: what a step made, on top of what was before.
pub type Key = Digest;

/// A digest in the making: fields of known length, so that no two lists of fields are alike.
pub struct Keyer(ring::digest::Context);

impl Keyer {
    /// Of this kind of thing.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut keyer = Self(ring::digest::Context::new(&ring::digest::SHA256));
        keyer.text(VERSION);
        keyer.text(kind);
        keyer
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Takes in a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Takes in a list.
    pub fn list(&mut self, list: &[String]) -> &mut Self {
        self.0.update(&(list.len() as u64).to_le_bytes());
        for text in list {
            self.text(text);
        }
        self
    }

    /// Takes in something that may not be there.
    pub fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.bytes(b"1").text(text),
            None => self.bytes(b"0"),
        }
    }

    /// The key.
    #[must_use]
    pub fn key(self) -> Key {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(bytes)
    }
}

/// What a build begins with: the layers of an image (none for `scratch`), and what makes all steps of this
/// build differ from those of another (`SOURCE_DATE_EPOCH`).
#[must_use]
pub fn base(diff_ids: &[Digest], salt: &str) -> Key {
    let mut keyer = Keyer::new("base");
    keyer.text(salt).list(&diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    keyer.key()
}

/// A working directory.
#[must_use]
pub fn workdir(before: &Key, path: &str, user: &str) -> Key {
    let mut keyer = Keyer::new("workdir");
    keyer.text(&before.to_string()).text(path).text(user);
    keyer.key()
}

/// What of a RUN the Dockerfile does not say.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'s> {
    /// The network it is on.
    pub network: &'s str,
    /// Whether it has a machine of its own: another kernel may have another result.
    pub machine: bool,
    /// What it calls its host, if that was asked for.
    pub hostname: Option<&'s str>,
}

/// A RUN. `sources` are the keys of what its mounts show, in order, for those that show anything.
#[must_use]
pub fn run(before: &Key, step: &RunStep, sources: &[Key], around: Surroundings<'_>) -> Key {
    let mut keyer = Keyer::new("run");
    keyer.text(&before.to_string()).list(&step.argv).list(&step.env).text(&step.user).text(&step.workdir);
    keyer.text(around.network).text(if step.insecure { "insecure" } else { "" });
    if !step.devices.is_empty() {
        keyer
            .text("devices")
            .list(&step.devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>());
    }
    if let Some((path, script)) = &step.script {
        keyer.text(path).text(script);
    }
    if around.machine {
        keyer.text("vm");
    }
    if let Some(name) = around.hostname {
        keyer.text("hostname").text(name);
    }
    for mount in &step.mounts {
        self::mount(&mut keyer, mount);
    }
    keyer.list(&sources.iter().map(ToString::to_string).collect::<Vec<_>>());
    keyer.key()
}

/// Of a secret only its place counts, never its content; of a cache its id.
fn mount(keyer: &mut Keyer, mount: &Mount) {
    keyer.text(&mount.target).text(if mount.read_only { "ro" } else { "rw" });
    match &mount.kind {
        MountKind::Bind { source, .. } => keyer.text("bind").text(source),
        MountKind::Cache { id, mode, uid, gid, source, .. } => {
            keyer.text("cache").text(id).text(source).text(&format!("{mode:o} {uid} {gid}"))
        }
        MountKind::Tmpfs { size } => keyer.text("tmpfs").text(&format!("{size:?}")),
        MountKind::Secret { id, mode, uid, gid, env, .. } => {
            keyer.text("secret").text(id).text(&format!("{mode:o} {uid} {gid}")).maybe(env.as_deref())
        }
        MountKind::Ssh { id, mode, uid, gid, .. } => {
            keyer.text("ssh").text(id).text(&format!("{mode:o} {uid} {gid}"))
        }
    };
}

/// A COPY of files with this content. `before` is left out of it with `--link`.
#[must_use]
pub fn copy(before: Option<&Key>, step: &CopyStep, content: &Key) -> Key {
    let mut keyer = Keyer::new("copy");
    keyer.maybe(before.map(ToString::to_string).as_deref()).text(&content.to_string());
    keyer.text(&step.destination).text(if step.into_directory { "into" } else { "as" });
    keyer.maybe(step.chown.as_deref()).text(&format!("{:?}", step.chmod));
    keyer.text(if step.add { "add" } else { "copy" }).text(&format!("{:?} {}", step.unpack, step.parents));
    keyer.key()
}

/// What a COPY takes, by where it comes from: the same origin and sources give the same files. Cheap, for it
/// reads nothing; [`copy`](fn@copy) is what it leads to.
#[must_use]
pub fn selection(origin: &Key, step: &CopyStep) -> Key {
    let mut keyer = Keyer::new("selection");
    keyer.text(&origin.to_string()).list(&step.exclude).text(&format!("{}", step.parents));
    for source in &step.sources {
        match source {
            CopySource::Path(path) => keyer.text("path").text(path),
            CopySource::Inline { name, content } => keyer.text("inline").text(name).text(content),
            CopySource::Url(url) => keyer.text("url").text(url),
            CopySource::Git(git) => keyer.text("git").text(git),
        };
    }
    keyer.key()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let key = |parts: [&str; 2]| {
            let mut keyer = Keyer::new("x");
            keyer.text(parts[0]).text(parts[1]);
            keyer.key()
        };
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_eq!(key(["a", "b"]), key(["a", "b"]));
        assert_ne!(base(&[], ""), base(&[], "1"));
    }

    #[test]
    fn a_secret_is_not_part_of_the_key_but_its_place_is() {
        let step = |mount: &str| RunStep {
            argv: vec!["x".into()],
            script: None,
            env: Vec::new(),
            proxies: Vec::new(),
            user: String::new(),
            workdir: "/".into(),
            mounts: vec![crate::metadata::mount(mount, "/").unwrap()],
            network: None,
            insecure: false,
            devices: Vec::new(),
        };
        let before = base(&[], "");
        let around = |machine| Surroundings { network: "default", machine, hostname: None };
        let key = |mount: &str| run(&before, &step(mount), &[], around(false));
        assert_ne!(key("type=secret,id=a"), key("type=secret,id=b"));
        assert_ne!(key("type=cache,target=/a"), key("type=cache,target=/b"));
        let mut proxied = step("type=tmpfs,target=/t");
        proxied.proxies = vec!["http_proxy=x".into()];
        let plain = step("type=tmpfs,target=/t");
        let usual = run(&before, &plain, &[], around(false));
        assert_eq!(run(&before, &proxied, &[], around(false)), usual);
        assert_ne!(run(&before, &plain, &[], around(true)), usual);
        let named = Surroundings { hostname: Some("h"), ..around(false) };
        assert_ne!(run(&before, &plain, &[], named), usual);
    }
}
