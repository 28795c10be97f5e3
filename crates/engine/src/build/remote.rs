//! What a build takes from afar: files by HTTP, repositories by the program `git`. Both are kept in the cache's
//! `remote/`: a record for each address, replaced by rename, and the directory it names, which never changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cata_build::attest::Material;
use cata_build::context::{How, Selection, select};
use cata_build::ignore::Ignore;
use cata_build::key::{Key, Keyer};
use cata_build::source::{GitSource, file_name};
use cata_build::stage::{CopySource, CopyStep};
use cata_image::fetch::{self, Fetched, Known};
use cata_sys::path::Root;
use serde::{Deserialize, Serialize};

use super::BuildError;
use super::cache::{Cache, Shared};
use super::git;
use super::output::Unpacked;
use super::request::Secret;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};

/// A context that is one file is a Dockerfile, and no longer than this.
const TEXT_MAX: u64 = 4 << 20;

/// What an address gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemoteRecord {
    /// The address, for people.
    pub(super) url: String,
    /// Its directory in `remote/`.
    pub(super) dir: String,
    /// The boot it was fetched in: only in that it is believed.
    pub(super) boot: String,
    /// SHA-256 of the file, or the commit.
    pub(super) version: String,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    last_modified: Option<String>,
}

impl RemoteRecord {
    /// A repository's.
    pub(super) fn of_commit(url: &str, dir: String, boot: &str, commit: &str) -> Self {
        Self {
            url: url.to_owned(),
            dir,
            boot: boot.to_owned(),
            version: commit.to_owned(),
            etag: None,
            last_modified: None,
        }
    }
}

/// What opens repositories.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'k> {
    /// The socket of an SSH agent.
    pub agent: Option<&'k Path>,
    /// Secrets by name: `GIT_AUTH_TOKEN`, `HTTP_AUTH_TOKEN_HOST` and the like among them.
    pub secrets: &'k BTreeMap<String, Secret>,
}

/// Something fetched.
#[derive(Debug)]
pub(super) struct Remote {
    /// What it is, and what it is called.
    pub(super) key: Key,
    /// Where it came from, and which it was.
    pub(super) material: Material,
    directory: PathBuf,
    /// What to take of the directory.
    source: String,
    /// A file's name, if it is one.
    pub(super) name: Option<String>,
}

/// Says what happens; lines of programs.
pub(super) type Say<'s> = dyn Fn(&[u8]) + 's;

/// Everything that a step takes from afar, in order.
pub(super) fn fetch_all(
    cache: &Cache,
    step: &CopyStep,
    keys: Keys<'_>,
    say: &Say<'_>,
) -> std::result::Result<Vec<Remote>, BuildError> {
    let mut remotes = Vec::new();
    for source in &step.sources {
        match source {
            CopySource::Url(url) => remotes.push(file(cache, url, step.checksum.as_deref(), keys, say)?),
            CopySource::Git(text) => {
                let source = GitSource::parse(text);
                let (directory, commit) = git::checkout(cache, &source, step.keep_git_dir, keys, say)?;
                if let Some(wanted) = step.checksum.as_deref()
                    && !commit.starts_with(wanted)
                {
                    return Err(BuildError::new(
                        Kind::InvalidArgument,
                        format!("{text} is at commit {commit}, not {wanted} as --checksum says"),
                    ));
                }
                let mut keyer = Keyer::new("git");
                let kept = if step.keep_git_dir { "with .git" } else { "" };
                keyer.text(&commit).text(&source.subdirectory).text(kept);
                let key = keyer.key();
                let material = Material::remote(&source.repository, &commit);
                remotes.push(Remote { key, material, directory, source: source.subdirectory, name: None });
            }
            CopySource::Path(_) | CopySource::Inline { .. } => {}
        }
    }
    Ok(remotes)
}

impl Remote {
    /// Its files. Keeps the directory open.
    pub(super) fn select(&self, step: &CopyStep) -> std::result::Result<(Selection, Root), BuildError> {
        let root = Root::open_trusted(&self.directory)
            .map_err(|errno| BuildError::io("open", &self.directory, errno))?;
        let exclude = Ignore::of(step.exclude.iter().map(String::as_str))
            .map_err(|why| BuildError::new(Kind::InvalidArgument, format!("--exclude: {why}")))?;
        let none = Ignore::default();
        let how = How { ignore: &none, exclude: &exclude, parents: false, stage: false, threads: 1 };
        let mut selection = select(&root, &[&self.source], &how, None)?;
        for found in &mut selection.roots {
            if let Some(name) = &self.name {
                found.name = name.clone().into_bytes();
            }
        }
        Ok((selection, root))
    }
}

/// The name of a record.
pub(super) fn record_key(kind: &str, fields: &[&str]) -> Key {
    let mut keyer = Keyer::new(kind);
    for field in fields {
        keyer.text(field);
    }
    keyer.key()
}

fn failed(error: &fetch::FetchError) -> BuildError {
    let kind = match error {
        fetch::FetchError::Status { status, .. } if status.is_client_error() => Kind::NotFound,
        _ => Kind::Unavailable,
    };
    BuildError::new(kind, Foreign::new(kind, None, error).to_string())
}

/// A file by HTTP: asked for again each time, unless its checksum says that it cannot have changed.
fn file(
    cache: &Cache,
    url: &str,
    checksum: Option<&str>,
    keys: Keys<'_>,
    say: &Say<'_>,
) -> std::result::Result<Remote, BuildError> {
    let wanted = checksum.map(|text| text.trim_start_matches("sha256:"));
    let key = record_key("url", &[url]);
    let known = cache.remote(&key);
    let record = match known {
        Some(record) if wanted == Some(record.version.as_str()) => record,
        known => {
            let asked = known
                .as_ref()
                .map(|r| Known { etag: r.etag.clone(), last_modified: r.last_modified.clone() });
            match (
                fetch::fetch(url, &asked.unwrap_or_default(), login(url, keys.secrets).as_deref())
                    .map_err(|error| failed(&error))?,
                known,
            ) {
                (Fetched::Unchanged, Some(record)) => record,
                (Fetched::Unchanged, None) => {
                    return Err(BuildError::new(
                        Kind::Unavailable,
                        format!("cannot fetch {url}: the server says that it is unchanged, unasked"),
                    ));
                }
                (Fetched::File(download), _) => {
                    let record = keep(cache, url, download, wanted, say)?;
                    cache.remember_remote(&key, &record)?;
                    record
                }
            }
        }
    };
    matches(url, wanted, &record.version)?;
    touch(&cache.remote_directory(&record));
    let name = file_name(url);
    let mut keyer = Keyer::new("url");
    keyer.text(&record.version).text(&name).maybe(record.last_modified.as_deref());
    Ok(Remote {
        key: keyer.key(),
        material: Material::remote(url, &record.version),
        directory: cache.remote_directory(&record),
        source: "file".to_owned(),
        name: Some(name),
    })
}

/// What lets in where a secret says so: `HTTP_AUTH_HEADER_HOST` as it is, or `HTTP_AUTH_TOKEN_HOST` as a bearer's token.
fn login(url: &str, secrets: &BTreeMap<String, Secret>) -> Option<String> {
    let host = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let find = |name: &str| {
        let secret = secrets.get(&format!("{name}_{host}"))?;
        Some(String::from_utf8_lossy(&secret.0).trim().to_owned())
    };
    find("HTTP_AUTH_HEADER").or_else(|| find("HTTP_AUTH_TOKEN").map(|token| format!("Bearer {token}")))
}

fn matches(url: &str, wanted: Option<&str>, found: &str) -> std::result::Result<(), BuildError> {
    match wanted {
        Some(wanted) if wanted != found => Err(BuildError::new(
            Kind::InvalidArgument,
            format!("{url} has the digest sha256:{found}, not sha256:{wanted} as --checksum says"),
        )),
        _ => Ok(()),
    }
}

/// Writes a download into a directory of its own.
fn keep(
    cache: &Cache,
    url: &str,
    download: fetch::Download,
    wanted: Option<&str>,
    say: &Say<'_>,
) -> std::result::Result<RemoteRecord, BuildError> {
    let making = cache.begin()?;
    let path = making.diff().join("file");
    let io = |e: std::io::Error| BuildError::io("write", &path, e);
    let mut file = File::create(&path).map_err(io)?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut body = download.body;
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0_u64;
    loop {
        let read = body.read(&mut buffer).map_err(|e| {
            BuildError::new(
                Kind::Unavailable,
                format!("cannot fetch {url}: it broke off after {size} bytes: {e}"),
            )
        })?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(io)?;
        size += read as u64;
    }
    let version: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    matches(url, wanted, &version)?;
    let changed = download.known.last_modified.as_deref().and_then(fetch::http_date).unwrap_or(UNIX_EPOCH);
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)?;
    file.set_modified(changed).map_err(io)?;
    say(format!("{size} bytes, sha256:{version}").as_bytes());
    let dir = cache.publish_remote(&making)?;
    let Known { etag, last_modified } = download.known;
    Ok(RemoteRecord { url: url.to_owned(), dir, boot: cache.boot().to_owned(), version, etag, last_modified })
}

/// A build context from afar; what is kept for this build alone goes when it is dropped.
#[derive(Debug)]
pub struct RemoteContext {
    path: PathBuf,
    _unpacked: Option<Unpacked>,
    _lease: Shared,
}

impl RemoteContext {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Engine {
    /// Fetches a build context: a repository, or by HTTP an archive or a lone Dockerfile.
    ///
    /// # Errors
    /// It cannot be had; it is neither archive nor text.
    pub fn build_remote(
        &self,
        address: &str,
        keep_git: bool,
        keys: Keys<'_>,
        say: &dyn Fn(&[u8]),
    ) -> Result<RemoteContext> {
        let (cache, lease) = Cache::open(self)?;
        let wrong = |error: BuildError| Error::Build(Box::new(error));
        if GitSource::is(address) {
            let source = GitSource::parse(address);
            let (tree, _) = git::checkout(&cache, &source, keep_git, keys, say).map_err(wrong)?;
            let path = beneath(&tree, &source).map_err(wrong)?;
            return Ok(RemoteContext { path, _unpacked: None, _lease: lease });
        }
        let fetched = file(&cache, address, None, keys, say).map_err(wrong)?;
        let path = fetched.directory.join(&fetched.source);
        let open = || File::open(&path).map_err(Error::file("open", &path));
        let unpacked = match cata_image::tree::looks(&mut open()?) {
            cata_image::tree::Looks::Archive => self.build_context(&mut open()?)?,
            cata_image::tree::Looks::Other => {
                let mut text = String::new();
                let read = open()?.take(TEXT_MAX).read_to_string(&mut text);
                read.map_err(|_| {
                    wrong(BuildError::new(
                        Kind::InvalidArgument,
                        format!("{address} is neither an archive nor a Dockerfile"),
                    ))
                })?;
                self.build_context_of("Dockerfile", text.as_bytes())?
            }
        };
        Ok(RemoteContext { path: unpacked.path(), _unpacked: Some(unpacked), _lease: lease })
    }
}

/// A directory of a tree that a stranger made: links out of it lead nowhere.
fn beneath(tree: &Path, source: &GitSource) -> std::result::Result<PathBuf, BuildError> {
    let path = tree.join(&source.subdirectory);
    let inside = tree.canonicalize().and_then(|tree| path.canonicalize().map(|path| (tree, path)));
    match inside {
        Ok((tree, path)) if path.starts_with(&tree) && path.is_dir() => Ok(path),
        _ => Err(BuildError::new(
            Kind::InvalidArgument,
            format!("there is no directory {} in {}", source.subdirectory, source.repository),
        )),
    }
}

/// When it was last used: what `prune` goes by.
pub(super) fn touch(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}
