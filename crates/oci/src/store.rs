//! What is known of containers: one directory each, readable by `cat`.
//!
//! | file | what |
//! |---|---|
//! | `state.json` | the [`Record`]; it is there as long as the container exists |
//! | `config.json` | the specification it was made from |
//! | `lock` | held by whoever changes the container |
//! | `start` | the socket at which a created container waits |
//! | `gate` | locked by a created container until it runs its program or dies |
//!
//! Nothing here says "running": that is looked up, so that nothing can be left wrong by a killed command.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cata_runtime::cgroup::{Cgroup, CgroupError, CgroupPlan, Directory, Unit};
use cata_runtime::rdt::{self, RdtPlan};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A container as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// 0 until it has a process.
    pub(crate) pid: i32,
    /// When the process started, in the kernel's ticks: tells it from another of the same number.
    pub(crate) started: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) owner: u32,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Its directories; no limits.
    pub(crate) cgroup: Option<CgroupPlan>,
    /// Its class of service.
    #[serde(default)]
    pub(crate) rdt: Option<RdtPlan>,
    /// It has a pid namespace of its own: when its first process ends, so do all.
    pub(crate) own_pids: bool,
    /// Its first process dies with the command that made it.
    #[serde(default)]
    pub(crate) tied: bool,
}

impl Record {
    /// Its scope of systemd's.
    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.cgroup.as_ref()?.unit.as_ref()
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Where containers are.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: PathBuf,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// This process changes it: nobody else does.
    pub(crate) locked: bool,
}

/// Held while a container is being changed; released at the latest by the end of this process. A record lock:
/// processes made here do not inherit it, and it would be lost if the file were opened and closed once more.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

/// runc's rule, so that an id is a name of a directory.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(allowed) {
        return Err(Error::new(format!("invalid container ID format: `{id}`")));
    }
    Ok(())
}

impl Store {
    /// Every container, by name. A directory without a record is one on its way in or out.
    pub(crate) fn all(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(Error::io("read", &self.root))?,
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        let known = |id: &String| check_id(id).is_ok() && !id.starts_with('.');
        Ok(names.iter().filter(|id| known(id)).filter_map(|id| self.get(id).ok()).collect())
    }

    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// # Errors
    /// In words that callers look for: `does not exist`.
    pub(crate) fn get(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.dir(id);
        let path = dir.join("state.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::new(format!("container `{id}` does not exist")));
            }
            result => result.map_err(Error::io("read", &path))?,
        };
        let record = serde_json::from_slice(&text)
            .map_err(|error| Error::new(format!("read {}: {error}", path.display())))?;
        Ok(Container { dir, record, locked: false })
    }

    /// Makes the directory of a new container, locked.
    pub(crate) fn make(&self, id: &str) -> Result<(PathBuf, Lock)> {
        check_id(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o711).recursive(true);
        builder.create(&self.root).map_err(Error::io("create", &self.root))?;
        let dir = self.dir(id);
        let exists = || Error::new(format!("container with id `{id}` already exists"));
        loop {
            match DirBuilder::new().mode(0o711).create(&dir) {
                Ok(()) => {}
                // Left by a command that was killed before it made anything, if nobody holds its lock.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &dir)(error)),
            }
            let Some(lock) = try_lock(&dir)? else { return Err(exists()) };
            if dir.join("state.json").exists() {
                return Err(exists());
            }
            // Somebody may have removed the directory before it was locked.
            if lock.is_of(&dir) {
                return Ok((dir, lock));
            }
        }
    }
}

impl Lock {
    fn is_of(&self, dir: &Path) -> bool {
        let ours = rustix::fs::fstat(&self.0).map(|stat| stat.st_ino);
        fs::metadata(dir.join("lock")).is_ok_and(|theirs| ours == Ok(theirs.ino()))
    }
}

fn open_lock(dir: &Path, create: bool) -> Result<OwnedFd> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(create).truncate(false).mode(0o600).open(&path);
    file.map(OwnedFd::from).map_err(Error::io("open", &path))
}

fn try_lock(dir: &Path) -> Result<Option<Lock>> {
    let file = open_lock(dir, true)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(Error::errno("lock", &dir.join("lock"))(errno)),
    }
}

/// Whether somebody else changes the container.
fn is_locked(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join("lock")) else { return false };
    let result = fcntl_lock(&file, FlockOperation::NonBlockingLockShared);
    matches!(result, Err(Errno::AGAIN | Errno::ACCESS))
}

/// Whether a created container waits: its process has the lock on this file. It is never waited for.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::AGAIN)
}

impl Container {
    /// Waits until nobody else changes this container, and reads what it is then.
    pub(crate) fn lock(&mut self, store: &Store) -> Result<Lock> {
        loop {
            // Not made here: it would keep who has just removed it from removing the directory.
            let file = open_lock(&self.dir, false)
                .map_err(|_| Error::new(format!("container `{}` does not exist", self.record.id)))?;
            rustix::io::retry_on_intr(|| fcntl_lock(&file, FlockOperation::LockExclusive))
                .map_err(Error::errno("lock", &self.dir))?;
            let lock = Lock(file);
            *self = store.get(&self.record.id)?;
            if lock.is_of(&self.dir) {
                self.locked = true;
                return Ok(lock);
            }
        }
    }

    /// Replaces the record.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).map_err(|e| Error::new(e.to_string()))?;
        let (path, new) = (self.dir.join("state.json"), self.dir.join(".state.json"));
        write(&new, &text)?;
        fs::rename(&new, &path).map_err(Error::io("write", &path))
    }

    /// What it is doing now.
    pub(crate) fn status(&self) -> Status {
        if self.record.pid == 0 {
            return if !self.locked && is_locked(&self.dir) { Status::Creating } else { Status::Stopped };
        }
        if started(self.record.pid) != Some(self.record.started) {
            return Status::Stopped;
        }
        if is_held(&self.dir.join("gate")) {
            return Status::Created;
        }
        let frozen = self.cgroup().is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
        if frozen { Status::Paused } else { Status::Running }
    }

    /// Its cgroup, as far as it is still there.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::open(self.record.cgroup.as_ref()?).ok()
    }

    /// Removes its cgroup, once everybody in it is dead, and what was made above it.
    pub(crate) fn remove_cgroup(&self, within: std::time::Duration) -> Result<()> {
        if let Some(plan) = &self.record.rdt
            && let Ok(root) = rdt::mounted()
        {
            plan.leave(&root).map_err(|e| Error::chain("class of service", &e))?;
        }
        let failed = |e: CgroupError| Error::chain("remove the cgroup", &e);
        let cgroup = self.cgroup();
        if let Some(cgroup) = &cgroup {
            cgroup.kill(within).map_err(failed)?;
        }
        // A scope whose processes are gone ends by itself: where systemd does not answer, nothing but a name may remain.
        let _ = self.record.unit().map(Unit::stop);
        if let Some(cgroup) = cgroup {
            cgroup.remove(within).map_err(failed)?;
        }
        for directory in self.record.cgroup.iter().flat_map(|cgroup| &cgroup.directories) {
            for parent in parents(directory) {
                let marked = rustix::fs::getxattr(&parent, MARK, &mut [0u8; 8]).is_ok();
                // Others may have moved in.
                if !marked || fs::remove_dir(&parent).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Its first process; `None` when that has ended.
    pub(crate) fn process(&self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.record.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now can the number not become somebody else's.
        (started(self.record.pid) == Some(self.record.started)).then_some((pid, pidfd))
    }

    /// Takes it away. The record goes last: until then it can be done again.
    pub(crate) fn forget(&self) -> Result<()> {
        forget(&self.dir)
    }
}

/// On a cgroup that this runtime made on its way to a container's: nobody else knows of it (an engine that
/// makes its own version 1 groups, say), so it goes with the last container below it.
const MARK: &str = "user.cata-runtime";

/// Cgroups above a container's, the deepest first.
fn parents(directory: &Directory) -> impl Iterator<Item = PathBuf> {
    let above = directory.path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    above.map(|path| directory.mount.join(path))
}

/// Cgroups above those of a plan that do not exist yet.
pub(crate) fn missing_parents(plan: &CgroupPlan) -> Vec<PathBuf> {
    let missing = |directory| parents(directory).take_while(|path| !path.exists());
    plan.directories.iter().flat_map(missing).collect()
}

/// Says of cgroups that they are this runtime's.
pub(crate) fn mark(made: &[PathBuf]) {
    for path in made {
        // Without it one more empty directory stays.
        let _ = rustix::fs::setxattr(path, MARK, b"1", rustix::fs::XattrFlags::empty());
    }
}

/// Where the root is shown to CRIU while it restores a container.
pub(crate) const RESTORED: &str = "root";

/// See [`Container::forget`].
pub(crate) fn forget(dir: &Path) -> Result<()> {
    // Where a restored container's root was, in a mount namespace that is gone.
    let _ = fs::remove_dir(dir.join(RESTORED));
    for name in ["start", "gate", "config.json", ".state.json", "state.json", "lock"] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove", &dir.join(name))(error));
            }
            _ => {}
        }
    }
    match fs::remove_dir(dir) {
        // Somebody makes the next one of this name already.
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && dir.join("lock").exists() => Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner reads.
pub(crate) fn write(path: &Path, text: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text)).map_err(Error::io("write", path))
}

/// When a process started; `None` when it has ended, though it may not have been waited for.
pub(crate) fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories() {
        for good in ["a", "A-b_c.d+e", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "\u{e9}", "a\0"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_comes_late_leaves_nothing_in_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let store = Store { root: root.path().join("all") };
        let (dir, lock) = store.make("c").unwrap();
        assert!(open_lock(&dir, false).is_ok());
        // As far as `forget` has come when somebody else wants to lock it.
        fs::remove_file(dir.join("lock")).unwrap();
        assert!(open_lock(&dir, false).is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        drop(lock);
        // Who makes the next one takes the directory as it is.
        assert_eq!(store.make("c").unwrap().0, dir);
    }

    #[test]
    fn own_start_is_known_and_nobodys_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(started(pid).is_some());
        assert_eq!(started(pid), started(pid));
        assert_eq!(started(i32::MAX), None);
    }
}
