//! Repositories: fetched by the program `git`, which asks nobody anything, runs no hooks, reads no settings of
//! the user, and takes one commit.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cata_build::source::GitSource;

use super::BuildError;
use super::cache::{Cache, Making};
use super::remote::Keys;
use super::remote::{RemoteRecord, Say, record_key, touch};
use super::request::Secret;
use crate::error::Kind;

/// Lines of what it said that an error carries.
const TOLD: usize = 6;
/// What it takes from the caller's environment.
const KEPT: [&str; 11] = [
    "PATH",
    "HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "GIT_SSL_CAINFO",
];
/// Settings that nobody's files change.
const SETTINGS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "credential.helper=",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
    "gc.auto=0",
];

/// The files of a repository at what is asked for, and the commit that this is.
pub(super) fn checkout(
    cache: &Cache,
    source: &GitSource,
    keep_git_dir: bool,
    keys: Keys<'_>,
    say: &Say<'_>,
) -> Result<(PathBuf, String), BuildError> {
    if let Some(unknown) = &source.unknown {
        let text = format!("{}: `?{unknown}` is not supported", source.repository);
        return Err(BuildError::new(Kind::InvalidArgument, text)
            .hint(Some("one of ref, branch and tag; subdir; checksum".to_owned())));
    }
    let git = Git { source, keys, say };
    let (name, commit) = git.resolve()?;
    if !commit.starts_with(&source.checksum) {
        let text = format!("{} is at commit {commit}, not {}", source.repository, source.checksum);
        return Err(BuildError::new(Kind::InvalidArgument, text));
    }
    let key = record_key("git", &[&source.repository, &commit, if keep_git_dir { ".git" } else { "" }]);
    if let Some(record) = cache.remote(&key) {
        let directory = cache.remote_directory(&record);
        touch(&directory);
        return Ok((directory, record.version));
    }
    let making = cache.begin()?;
    git.fetch(&making, &name, &commit)?;
    let tree = making.diff();
    let seconds = git.line(&tree, &["show", "-s", "--format=%ct", "HEAD"])?;
    if !keep_git_dir {
        remove_git(&tree).map_err(|e| BuildError::io("remove .git of", &tree, e))?;
    }
    let at = UNIX_EPOCH + Duration::from_secs(seconds.parse().unwrap_or(0));
    settle(&tree, at).map_err(|e| BuildError::io("set modes and times of", &tree, e))?;
    let dir = cache.publish_remote(&making)?;
    let record = RemoteRecord::of_commit(&source.repository, dir, cache.boot(), &commit);
    cache.remember_remote(&key, &record)?;
    Ok((cache.remote_directory(&record), commit))
}

/// A setting that lets `git` in where a secret says so: `GIT_AUTH_TOKEN`, or `GIT_AUTH_HEADER` as it is, each also with
/// the host behind a dot. It is only said to that host.
fn login(repository: &str, secrets: &BTreeMap<String, Secret>) -> Option<(String, String)> {
    let (scheme, rest) =
        repository.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let host = rest.split('/').next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let find = |name: &str| {
        let of_host = secrets.get(&format!("{name}.{host}"));
        let secret = of_host.or_else(|| secrets.get(name))?;
        Some(String::from_utf8_lossy(&secret.0).trim().to_owned())
    };
    let header = match find("GIT_AUTH_HEADER") {
        Some(header) => header,
        None => {
            let pair = format!("x-access-token:{}", find("GIT_AUTH_TOKEN")?);
            format!("basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair))
        }
    };
    Some((format!("http.{scheme}://{host}/.extraHeader"), format!("Authorization: {header}")))
}

struct Git<'g> {
    source: &'g GitSource,
    keys: Keys<'g>,
    say: &'g Say<'g>,
}

impl Git<'_> {
    /// What to fetch, and the commit it is at.
    fn resolve(&self) -> Result<(String, String), BuildError> {
        let reference = self.source.reference.as_str();
        if self.source.is_commit() {
            let commit = reference.to_ascii_lowercase();
            return Ok((commit.clone(), commit));
        }
        let wanted = if reference.is_empty() { "HEAD" } else { reference };
        let peeled = format!("{wanted}^{{}}");
        let repository = self.source.repository.as_str();
        let told = self.run(None, &["ls-remote", "--", repository, wanted, &peeled])?;
        let found: Vec<(&str, &str)> = told.lines().filter_map(|line| line.split_once('\t')).collect();
        for full in [wanted.to_owned(), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")] {
            // An annotated tag is an object of its own; what it stands for comes with `^{}`.
            let peeled = format!("{full}^{{}}");
            let at = |name: &str| found.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
            if let Some(commit) = at(&peeled).or_else(|| at(&full)) {
                return Ok((full, commit.to_owned()));
            }
        }
        Err(BuildError::new(Kind::NotFound, format!("{repository} has no branch or tag {wanted}"))
            .hint(Some("a branch, a tag, or a whole commit id".to_owned())))
    }

    /// One commit and its files.
    fn fetch(&self, making: &Making, name: &str, commit: &str) -> Result<(), BuildError> {
        let tree = making.diff();
        let repository = self.source.repository.as_str();
        let _ = self.run(Some(&tree), &["init", "--quiet", "--template="])?;
        // Addresses of submodules may be relative to it.
        let _ = self.run(Some(&tree), &["remote", "add", "--", "origin", repository])?;
        let short = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", repository];
        let mut done = self.run(Some(&tree), &[&short[..], &[commit]].concat());
        if done.is_err() && name != commit {
            // Old servers give what has a name and nothing else.
            done = self.run(Some(&tree), &[&short[..], &[name]].concat());
        }
        if done.is_err() {
            // Servers of plain files know no depth, and give no commit by its id.
            let all = [
                "fetch",
                "--quiet",
                "--",
                repository,
                "+refs/heads/*:refs/remotes/o/*",
                "+refs/tags/*:refs/tags/*",
            ];
            if self.run(Some(&tree), &all).is_ok() {
                done = Ok(String::new());
            }
        }
        let _ = done?;
        let _ = self.run(Some(&tree), &["checkout", "--quiet", "--force", "--detach", commit])?;
        if tree.join(".gitmodules").is_file() {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            let _ = self.run(Some(&tree), &update)?;
        }
        Ok(())
    }

    fn line(&self, tree: &Path, args: &[&str]) -> Result<String, BuildError> {
        self.run(Some(tree), args).map(|text| text.trim().to_owned())
    }

    /// Runs it and returns what it wrote.
    fn run(&self, tree: Option<&Path>, args: &[&str]) -> Result<String, BuildError> {
        let mut command = Command::new("git");
        command.env_clear();
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        if let Some((setting, value)) = login(&self.source.repository, self.keys.secrets) {
            // Not as an argument: those are everybody's to read.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", setting)
                .env("GIT_CONFIG_VALUE_0", value);
        }
        let agent = self.keys.agent.map(PathBuf::from);
        if let Some(agent) = agent.or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from)) {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command.current_dir(tree.unwrap_or(Path::new("/")));
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        cata_sys::program::end_with_parent(&mut command, rustix::process::Signal::TERM);
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => BuildError::new(
                Kind::Unsupported,
                format!("the program git, which fetches {}, is not installed", self.source.repository),
            )
            .hint(Some("install the package git".to_owned())),
            _ => BuildError::io("start", Path::new("git"), e),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut told = Vec::new();
        let text = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut bytes = Vec::new();
                // What was read until then is what it wrote.
                let _ = stdout.map(|mut stdout| stdout.read_to_end(&mut bytes));
                bytes
            });
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
                let Ok(line) = line else { break };
                (self.say)(&line);
                told.push(String::from_utf8_lossy(&line).into_owned());
            }
            reader.join().unwrap_or_default()
        });
        let status = child.wait().map_err(|e| BuildError::io("wait for", Path::new("git"), e))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        let last = told.len().saturating_sub(TOLD);
        Err(BuildError::new(
            Kind::Unavailable,
            format!("git cannot fetch {}: {}", self.source.repository, told[last..].join("; ")),
        ))
    }
}

/// The repository itself, and the files by which submodules point to theirs.
fn remove_git(tree: &Path) -> std::io::Result<()> {
    let mut waiting = vec![tree.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            let is_directory = entry?.is_dir();
            if path.file_name().is_some_and(|name| name == ".git") {
                if is_directory { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
            } else if is_directory {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// The commit's time, and modes that no umask had a say in: a commit gives the same files everywhere.
fn settle(tree: &Path, at: SystemTime) -> std::io::Result<()> {
    let stamp = rustix::fs::Timespec {
        tv_sec: at
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|at| i64::try_from(at.as_secs()).ok())
            .unwrap_or(0),
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps { last_access: stamp, last_modification: stamp };
    let mut found = vec![(tree.to_owned(), true)];
    let mut next = 0;
    while let Some((dir, is_directory)) = found.get(next).cloned() {
        next += 1;
        if !is_directory {
            continue;
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            found.push((entry.path(), entry.file_type()?.is_dir()));
        }
    }
    // What is in a directory comes first, for its own time changes with that.
    for (path, is_directory) in found.iter().rev() {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_symlink() {
            let executable = *is_directory || metadata.permissions().mode() & 0o100 != 0;
            fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        }
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_open_repositories_of_their_host_alone() {
        let secret = |text: &str| Secret(text.as_bytes().to_vec());
        let mut secrets = BTreeMap::from([("GIT_AUTH_TOKEN.h:1".to_owned(), secret("of-host\n"))]);
        let (setting, value) = login("http://user@h:1/r.git", &secrets).unwrap();
        assert_eq!(setting, "http.http://h:1/.extraHeader");
        assert_eq!(value, "Authorization: basic eC1hY2Nlc3MtdG9rZW46b2YtaG9zdA==");
        assert_eq!(login("https://other/r.git", &secrets), None);
        assert_eq!(login("git@h:1/r.git", &secrets), None);
        secrets.insert("GIT_AUTH_HEADER".to_owned(), secret("bearer x"));
        let (setting, value) = login("https://other/r.git", &secrets).unwrap();
        assert_eq!((&*setting, &*value), ("http.https://other/.extraHeader", "Authorization: bearer x"));
    }
}
