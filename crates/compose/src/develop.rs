//! `develop.watch`: what is done when files of a service change.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fields::{Fields, items, wrong};
use crate::hook::{self, Hook};
use crate::project::Around;

/// Something to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// A directory or a file, absolute.
    pub path: PathBuf,
    /// What is done.
    pub action: Action,
    /// Where changed files go.
    pub target: String,
    /// Patterns of what does not count.
    pub ignore: Vec<String>,
    /// If there are any, patterns of what alone counts.
    pub include: Vec<String>,
    /// Whether files go there at once, too.
    pub initial: bool,
}

/// What is done about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Changed files are copied.
    Sync,
    /// And the container is restarted.
    SyncRestart,
    /// And something is run in it.
    SyncExec(Vec<Hook>),
    /// The container is restarted.
    Restart,
    /// Its image is built, and it is made anew.
    Rebuild,
}

/// What never counts: git's own files, and those that editors make for a moment.
const USUAL: [&str; 6] = [".git", "*~", "*.swp", "*.swx", ".#*", "4913"];

impl Watch {
    /// PURE: whether a changed path counts, by its name beneath [`Watch::path`].
    #[must_use]
    pub fn counts(&self, below: &Path) -> bool {
        !self.ignores(below) && (self.include.is_empty() || named(&self.include, below))
    }

    /// PURE: whether a path, and all beneath it, does not count.
    #[must_use]
    pub fn ignores(&self, below: &Path) -> bool {
        named(&self.ignore, below) || USUAL.iter().any(|pattern| covers(pattern, below))
    }

    /// PURE: where a changed path is in the container.
    #[must_use]
    pub fn inside(&self, below: &Path) -> PathBuf {
        let target = Path::new(&self.target);
        if below.as_os_str().is_empty() { target.to_owned() } else { target.join(below) }
    }
}

fn named(patterns: &[String], path: &Path) -> bool {
    patterns.iter().any(|pattern| covers(pattern, path))
}

/// PURE: whether a pattern is the path's, or that of a directory above it, or just their name.
fn covers(pattern: &str, path: &Path) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    if pattern.is_empty() {
        return false;
    }
    if pattern == "." {
        return true;
    }
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let wanted: Vec<&str> = pattern.split('/').collect();
    if let [name] = wanted.as_slice() {
        return parts.iter().any(|part| glob(name.as_bytes(), part.as_bytes()));
    }
    (0..=parts.len()).any(|end| matches(&wanted, parts.get(..end).unwrap_or_default()))
}

/// PURE: pattern by part; `**` is any number of parts.
fn matches(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern, parts) {
        ([], []) => true,
        (["**", rest @ ..], _) => {
            (0..=parts.len()).any(|skipped| matches(rest, parts.get(skipped..).unwrap_or_default()))
        }
        ([first, rest @ ..], [part, others @ ..]) => {
            glob(first.as_bytes(), part.as_bytes()) && matches(rest, others)
        }
        _ => false,
    }
}

/// PURE: `*` and `?` within one part.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=text.len()).any(|taken| glob(rest, text.get(taken..).unwrap_or_default()))
        }
        ([b'?', rest @ ..], [_, others @ ..]) => glob(rest, others),
        ([a, rest @ ..], [b, others @ ..]) => a == b && glob(rest, others),
        _ => false,
    }
}

/// PURE: `develop` of a service.
pub(crate) fn read(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<Vec<Watch>> {
    let name = fields.name("develop");
    let Some(node) = fields.take("develop") else { return Ok(Vec::new()) };
    let mut develop = Fields::of(node, name)?;
    let name = develop.name("watch");
    let mut all = Vec::new();
    for item in develop.take("watch").map(items).unwrap_or_default() {
        let mut watch = Fields::of(item, name.clone())?;
        let path = watch.text("path")?.ok_or_else(|| wrong(item, &name, "a mapping with a path"))?;
        let target = watch.text("target")?;
        let hooks = hook::read(&mut watch, "exec", around)?;
        let action = match watch.text("action")?.as_deref() {
            Some("sync") => Action::Sync,
            Some("sync+restart") => Action::SyncRestart,
            Some("sync+exec") => Action::SyncExec(hooks),
            Some("restart") => Action::Restart,
            Some("rebuild") => Action::Rebuild,
            _ => {
                let wanted = "sync, rebuild, restart, sync+restart or sync+exec";
                return Err(wrong(item, &watch.name("action"), wanted));
            }
        };
        if target.is_none() && !matches!(action, Action::Restart | Action::Rebuild) {
            return Err(wrong(item, &watch.name("target"), "there: it is where files go"));
        }
        let (ignore, include) = (watch.texts("ignore")?, watch.texts("include")?);
        let initial = watch.flag("initial_sync")?;
        watch.finish(&[])?;
        let target = target.unwrap_or_default();
        all.push(Watch { path: around.path(&path), action, target, ignore, include, initial });
    }
    develop.finish(&[])?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::covers;

    #[test]
    fn patterns_cover_names_paths_and_all_beneath() {
        for (pattern, path, yes) in [
            ("node_modules/", "node_modules/a/b.js", true),
            ("node_modules", "src/node_modules/x", true),
            ("*.pyc", "a/b.pyc", true),
            ("src/*.js", "src/a.js", true),
            ("src/*.js", "src/b/a.js", false),
            ("./src/b", "src/b/a.js", true),
            ("**/b/*", "src/b/a.js", true),
            ("src", "sources/a", false),
            ("", "a", false),
            (".", "a", true),
        ] {
            assert_eq!(covers(pattern, Path::new(path)), yes, "{pattern} {path}");
        }
    }
}
