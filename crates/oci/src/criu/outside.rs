//! What of a container is not its own: mounts and open files of the host, namespaces of others. A checkpoint
//! names them, and restoring it finds them again from the bundle.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cata_runtime::plan::{MountKind, NamespaceKind, NamespaceSource, Plan};
use cata_sys::path::Root;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::option;
use super::wire::Message;
use crate::error::{Error, Result};
use crate::store::{self, Record};

/// Beside CRIU's images.
const NAME: &str = "catamaran.json";
/// What runc writes of the standard streams, and those look for who move its checkpoints.
const DESCRIPTORS: &str = "descriptors.json";

/// See the module.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outside {
    mounts: Vec<Mount>,
    /// What CRIU calls the standard streams.
    streams: Vec<Stream>,
    /// It dies with the command that made it: CRIU restores that too.
    pub(crate) tied: bool,
}

/// A mount whose files are the host's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mount {
    /// Where it is inside.
    at: PathBuf,
    from: From,
}

/// Which files of the host.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum From {
    /// Those of the specification's mount at this target, or what is below them.
    Bind { target: PathBuf, below: PathBuf },
    /// The very same path: a device, or `/dev/null` as a mask.
    Host(PathBuf),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stream {
    number: u8,
    key: String,
}

/// A line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    id: u32,
    root: String,
    at: PathBuf,
}

impl Outside {
    /// Looks at a running container.
    pub(crate) fn of(plan: &Plan, record: &Record) -> Result<Self> {
        let pid = record.pid;
        let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let lines: Vec<Line> = text.lines().filter_map(line).collect();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let root = Root::open_trusted(&root).map_err(Error::errno("open", &root))?;
        let (mounts, streams) = (mounts(plan, &root, &lines), streams(pid, &lines));
        Ok(Self { mounts, streams, tied: record.tied })
    }

    pub(crate) fn save(&self, images: &Path, pid: i32) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::new(e.to_string()))?;
        store::write(&images.join(NAME), &text)?;
        let link = |number: u8| {
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
            link.to_string_lossy().into_owned()
        };
        let links: Vec<String> = (0..3).map(link).collect();
        let text = serde_json::to_vec(&links).map_err(|e| Error::new(e.to_string()))?;
        store::write(&images.join(DESCRIPTORS), &text)
    }

    pub(crate) fn load(images: &Path) -> Result<Self> {
        let path = images.join(NAME);
        let text = read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(format!("{}: no checkpoint that this runtime made", images.display()))
            }
            _ => Error::io("read", &path)(error),
        })?;
        serde_json::from_slice(&text).map_err(|error| Error::new(format!("{}: {error}", path.display())))
    }

    /// For CRIU, which then leaves them alone.
    pub(crate) fn declare(&self, mut options: Message) -> Message {
        for mount in &self.mounts {
            let at = mount.at.to_string_lossy();
            options = options.message(option::EXT_MNT, &Message::default().text(1, &at).text(2, &at));
        }
        for stream in self.streams.iter().filter(|stream| stream.key.starts_with("file[")) {
            options = options.text(option::EXTERNAL, &stream.key);
        }
        options
    }

    /// For CRIU, which takes what the bundle has and this program's standard streams in their place.
    pub(crate) fn provide(&self, mut options: Message, plan: &Plan) -> Result<Message> {
        for mount in &self.mounts {
            let source = match &mount.from {
                From::Host(path) => path.clone(),
                From::Bind { target, below } => source(plan, target, below).ok_or_else(|| {
                    let target = target.display();
                    Error::new(format!("the checkpoint needs a bind mount at {target}: the bundle has none"))
                })?,
            };
            let at = mount.at.to_string_lossy();
            let pair = Message::default().text(1, &at).text(2, &source.to_string_lossy());
            options = options.message(option::EXT_MNT, &pair);
        }
        let mut told: Vec<&str> = Vec::new();
        for Stream { number, key } in &self.streams {
            if !told.contains(&key.as_str()) {
                told.push(key);
                options = inherit(options, key, i32::from(*number));
            }
        }
        Ok(options)
    }
}

/// A descriptor of this program in the place of what a checkpoint calls so.
fn inherit(options: Message, key: &str, number: i32) -> Message {
    options.message(option::INHERIT_FD, &Message::default().text(1, key).number(2, number.into()))
}

fn source(plan: &Plan, target: &Path, below: &Path) -> Option<PathBuf> {
    let mount = plan.mounts.iter().rev().find(|mount| mount.target == *target)?;
    let MountKind::Bind(bind) = &mount.kind else { return None };
    Some(if below.as_os_str().is_empty() { bind.source.clone() } else { bind.source.join(below) })
}

fn line(text: &str) -> Option<Line> {
    let mut fields = text.split(' ');
    let id = fields.next()?.parse().ok()?;
    let root = fields.nth(2)?.to_owned();
    let at = unescape(fields.next()?);
    Some(Line { id, root, at: at.into() })
}

/// `\040` and the like.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

/// Those that the plan has from the host. Everything else is the container's own, and CRIU's to restore.
fn mounts(plan: &Plan, root: &Root, lines: &[Line]) -> Vec<Mount> {
    // Where the targets really are: there may be links on the way.
    let place = |path: &Path| {
        let fd = root.open(path, OFlags::PATH).ok()?;
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
    };
    let planned: Vec<(PathBuf, &cata_runtime::plan::Mount)> = plan
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Remount)
        .filter_map(|mount| Some((place(&mount.target)?, mount)))
        .collect();
    let masks: Vec<PathBuf> = plan.masked_paths.iter().filter_map(|path| place(path)).collect();
    let from = |line: &Line| {
        if masks.contains(&line.at) && line.root.ends_with("/null") {
            return Some(From::Host("/dev/null".into()));
        }
        if plan.devices.iter().any(|device| device.path == line.at) {
            return Some(From::Host(line.at.clone()));
        }
        let depth = |(_, (at, _)): &(usize, &(PathBuf, &cata_runtime::plan::Mount))| at.components().count();
        let over = planned.iter().enumerate().filter(|(_, (at, _))| line.at.starts_with(at));
        let (at, mount) = over.max_by_key(|one| (depth(one), one.0))?.1;
        let MountKind::Bind(_) = mount.kind else { return None };
        let below = line.at.strip_prefix(at).ok()?.to_owned();
        Some(From::Bind { target: mount.target.clone(), below })
    };
    lines.iter().filter_map(|line| Some(Mount { at: line.at.clone(), from: from(line)? })).collect()
}

/// What the first process has as its standard streams, where that is not of its own mounts.
fn streams(pid: i32, lines: &[Line]) -> Vec<Stream> {
    let stream = |number: u8| {
        let path = format!("/proc/{pid}/fd/{number}");
        let link = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
        if link.starts_with("pipe:[") || link.starts_with("socket:[") {
            return Some(Stream { number, key: link });
        }
        let stat = fs::metadata(&path).ok()?;
        // Terminals are CRIU's: of the container's own, or with `--shell-job`.
        let terminal = stat.file_type().is_char_device() && !is_memory_device(stat.rdev());
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let mount: u32 = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
        if terminal || lines.iter().any(|line| line.id == mount) {
            return None;
        }
        Some(Stream { number, key: format!("file[{mount:x}:{:x}]", stat.ino()) })
    };
    (0..3).filter_map(stream).collect()
}

/// `/dev/null` and its like.
fn is_memory_device(device: u64) -> bool {
    rustix::fs::major(device) == 1
}

/// Namespaces that are somebody else's: CRIU is not to save them.
pub(crate) fn declare_namespaces(mut options: Message, plan: &Plan) -> Result<Message> {
    for (kind, word, path) in joined(plan) {
        if let Some(key) = key(kind) {
            let stat = fs::metadata(path).map_err(Error::io("look at", path))?;
            options = options.text(option::EXTERNAL, &format!("{word}[{}]:{key}", stat.ino()));
        }
    }
    Ok(options)
}

/// A file that somebody else may have put there: neither a link to another, nor a pipe that never says anything.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// The same namespaces again. What is opened is to be kept until CRIU runs.
pub(crate) fn provide_namespaces(mut options: Message, plan: &Plan) -> Result<(Message, Vec<OwnedFd>)> {
    let mut opened = Vec::new();
    for (kind, word, path) in joined(plan) {
        match key(kind) {
            Some(key) => {
                let file = fs::File::open(path).map(OwnedFd::from).map_err(Error::io("open", path))?;
                super::pass_on(&file)?;
                options = inherit(options, key, file.as_raw_fd());
                opened.push(file);
            }
            None if matches!(kind, NamespaceKind::Ipc | NamespaceKind::Uts) => {
                let join = Message::default().text(1, word).text(2, &path.to_string_lossy());
                options = options.message(option::JOIN_NS, &join);
            }
            None => {
                return Err(Error::new(format!("CRIU restores nothing into a {word} namespace of others")));
            }
        }
    }
    Ok((options, opened))
}

/// What CRIU and its callers call it.
fn key(kind: NamespaceKind) -> Option<&'static str> {
    match kind {
        NamespaceKind::Network => Some("extRootNetNS"),
        NamespaceKind::Pid => Some("extRootPidNS"),
        _ => None,
    }
}

fn joined(plan: &Plan) -> impl Iterator<Item = (NamespaceKind, &'static str, &Path)> {
    plan.namespaces.iter().filter_map(|namespace| {
        let NamespaceSource::Path(path) = &namespace.source else { return None };
        let word = match namespace.kind {
            NamespaceKind::Network => "net",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Mount => "mnt",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        };
        Some((namespace.kind, word, path.as_path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("pipe"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(read(&file).unwrap(), b"text");
        assert!(read(&link).is_err() && read(dir.path()).is_err());
        assert_eq!(read(&pipe).unwrap_err().to_string(), "not a file");
    }

    #[test]
    fn lines_of_mountinfo_are_read() {
        let text = r"36 35 98:0 /mnt1 /mnt2\040x rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Line { id: 36, root: "/mnt1".into(), at: "/mnt2 x".into() };
        assert_eq!(line(text), Some(expected));
        assert_eq!(line("nothing"), None);
        assert_eq!(unescape(r"a\\b\134\04"), r"a\\b\\04");
    }
}
