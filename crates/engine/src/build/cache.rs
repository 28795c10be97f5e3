//! What builds keep: `<root>/build/`.
//!
//! | path | what, and what guards it |
//! |---|---|
//! | `lock` | shared by builds, exclusive for what deletes |
//! | `steps/<key>` | what a step made: replaced by rename; believed only in the boot it was made in, or after a sync |
//! | `layers/<name>/diff` | a step's upper directory, or a link to the store's layer it became; renamed here when complete |
//! | `contents/<selection>` | the content key that a selection led to |
//! | `making/<name>/` | steps under way; whoever has `lock` alone knows that they are nobody's |
//! | `caches/<hash>/` | `RUN --mount=type=cache`: `data`, and `lock` for those that do not share |
//! | `contexts/<hash>` | digests of a context's files |
//! | `remote/<hash>.json` | what an address gave: replaced by rename; believed only in the boot it was fetched in |
//! | `remote/<name>/` | files of such a record, never changed once they are here |

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cata_build::key::Key;
use cata_image::{Captured, Store, Unnamed};
use cata_spec::Digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::BuildError;
use super::remote::RemoteRecord;
use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::ledger;

/// Less than this waits to be written, in KiB: a sync costs little.
const CALM: u64 = 16 << 10;
/// So many times longer a layer waits to be sealed while the disk is busy.
const BUSY: u32 = 20;

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    /// The instruction, for people.
    pub(crate) title: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// Nanoseconds it took.
    pub(crate) took: u64,
    /// Its directory in `layers`; `None`: it changed nothing.
    pub(crate) layer: Option<String>,
    /// The layer it was made upon; `None`: an image's or nothing.
    pub(crate) upon: Option<String>,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The boot it was made in.
    pub(crate) boot: String,
    /// Whether a sync came after.
    pub(crate) synced: bool,
    /// The layer in the store, once an image needed it.
    pub(crate) captured: Option<CapturedLayer>,
}

/// A step's layer in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapturedLayer {
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
}

/// The directory, opened; nothing in it is deleted while this lives.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    boot: String,
}

/// Held by a build.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "the lock lives as long as the descriptor")] File);

/// A step under way: its directory goes when it is dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) path: PathBuf,
    name: String,
}

impl Making {
    pub(crate) fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// A directory beside them.
    pub(crate) fn extra(&self, name: &str) -> std::result::Result<PathBuf, BuildError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|e| BuildError::io("make", &path, e))?;
        Ok(path)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Cache {
    /// Opens it for a build, and removes what dead builds left if no other is at work.
    pub(crate) fn open(engine: &Engine) -> Result<(Self, Shared)> {
        let cache = Self::at(engine)?;
        let path = cache.root.join("lock");
        let lock = cache.lock_file(&path)?;
        if rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
            cache.sweep(engine);
        }
        rustix::io::retry_on_intr(|| rustix::fs::flock(lock.as_fd(), FlockOperation::LockShared))
            .map_err(Error::file("lock", path))?;
        Ok((cache, Shared(lock)))
    }

    /// Opens it for what deletes; `None` while a build is at work.
    pub(crate) fn open_alone(engine: &Engine) -> Result<Option<(Self, Shared)>> {
        let cache = Self::at(engine)?;
        let lock = cache.lock_file(&cache.root.join("lock"))?;
        if rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        cache.sweep(engine);
        Ok(Some((cache, Shared(lock))))
    }

    fn at(engine: &Engine) -> Result<Self> {
        let root = engine.paths.build();
        for dir in ["steps", "layers", "contents", "making", "caches", "contexts", "empty", "remote"] {
            let path = root.join(dir);
            if !path.is_dir() {
                // Layers hold other users' setuid programs: nobody but root may walk in.
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)
                    .map_err(Error::file("make", path))?;
            }
        }
        // Where the file system does not know the wish, it is only slower.
        let _ = File::open(root.join("making")).map(cata_sys::directory::spread);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self { root, boot: boot.trim().to_owned() })
    }

    fn lock_file(&self, path: &Path) -> Result<File> {
        let open = File::options().create(true).truncate(false).write(true).open(path);
        open.map_err(Error::file("open", path))
    }

    fn sweep(&self, engine: &Engine) {
        // What cannot be removed now is tried again by the next build.
        for record in engine.records().unwrap_or_default() {
            let idle = |id| engine.status(id).is_ok_and(|(_, owner)| owner != Owner::Alive);
            // Its build died before it was started: one that was started has been killed and removed.
            if record.request.leashed && idle(&record.id) {
                let options = crate::container::RemoveOptions { force: true, volumes: true };
                let _ = engine.remove(record.id.as_str(), options);
            }
        }
        for dir in [self.root.join("making"), engine.paths.state.join("build")] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
        self.collect_remotes();
    }

    /// A directory for a new step.
    pub(crate) fn begin(&self) -> std::result::Result<Making, BuildError> {
        let name = crate::container::names::random_id().as_str()[..24].to_owned();
        let path = self.root.join("making").join(&name);
        let making = Making { path, name };
        let make = |path: &Path, mode| crate::container::create::make_dir(path, mode);
        make(&making.path, 0o700)?;
        make(&making.diff(), 0o755)?;
        make(&making.work(), 0o755)?;
        Ok(making)
    }

    /// One step at a time: waits for another build, or another stage, that makes the same.
    pub(crate) fn lock_step(&self, key: &Key) -> Result<StepLock> {
        let path = self.root.join("steps").join(format!("{}.lock", key.hex()));
        let file = self.lock_file(&path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive))
            .map_err(Error::file("lock", &path))?;
        Ok(StepLock { path, _file: file })
    }

    fn step_path(&self, key: &Key) -> PathBuf {
        self.root.join("steps").join(key.hex())
    }

    /// What a step made, if it can be believed and its layer is there.
    pub(crate) fn find(&self, key: &Key, upon: Option<&str>) -> Option<StepRecord> {
        // A damaged record is as good as none: the step is made again.
        let path = self.step_path(key);
        let record: StepRecord = ledger::read(&path).ok()??;
        let believed = record.synced || (!self.boot.is_empty() && record.boot == self.boot);
        if !believed || record.upon.as_deref() != upon {
            return None;
        }
        if let Some(layer) = &record.layer
            && !self.layer(layer).is_dir()
        {
            return None;
        }
        // When it was last used: what `prune` goes by.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(record)
    }

    /// A step's upper directory.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name).join("diff")
    }

    /// Replaces a record. Several builds may do that at once: each by a name of its own.
    fn write(&self, key: &Key, record: &StepRecord) -> Result<()> {
        let path = self.step_path(key);
        let new = self.root.join("making").join(crate::container::names::random_id().short());
        let text =
            serde_json::to_vec(record).map_err(|source| Error::Record { path: path.clone(), source })?;
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.map_err(Error::file("write", path))
    }

    /// A complete step becomes visible. An empty upper directory is no layer.
    pub(crate) fn publish(
        &self,
        key: &Key,
        making: &Making,
        mut record: StepRecord,
        empty: bool,
    ) -> std::result::Result<StepRecord, BuildError> {
        record.boot.clone_from(&self.boot);
        if !empty {
            for entry in
                fs::read_dir(&making.path).map_err(|e| BuildError::io("list", &making.path, e))?.flatten()
            {
                if entry.file_name() != "diff" {
                    let path = entry.path();
                    fs::remove_dir_all(&path).map_err(|e| BuildError::io("remove", &path, e))?;
                }
            }
            let to = self.root.join("layers").join(&making.name);
            fs::rename(&making.path, &to).map_err(|e| BuildError::io("name", &to, e))?;
            record.layer = Some(making.name.clone());
        }
        self.write(key, &record)?;
        Ok(record)
    }

    /// Makes the step's layer one of the store's, once; `ahead`: what was done of it already.
    pub(crate) fn capture(
        &self,
        store: &Store,
        key: &Key,
        mut record: StepRecord,
        ahead: Option<Unnamed>,
    ) -> std::result::Result<(StepRecord, Option<Captured>), BuildError> {
        let Some(name) = record.layer.clone() else { return Ok((record, None)) };
        // Another build may be at the same layer.
        let _lock = self.lock_step(key)?;
        if let Ok(Some(now)) = ledger::read::<StepRecord>(&self.step_path(key))
            && now.layer == record.layer
        {
            record = now;
        }
        if let Some(known) = &record.captured
            && store.has_plain_layer(&known.diff_id)
        {
            let captured = Captured::known(known.diff_id, known.size, record.size);
            return Ok((record, Some(captured)));
        }
        let captured = match ahead {
            Some(ahead) => store.name_captured(&ahead)?,
            None => store.capture(&self.layer(&name))?,
        };
        store.pin_layer(&captured.diff_id)?;
        let home = self.root.join("layers").join(&name);
        if !home.is_symlink() {
            store.adopt_layer(&home, &captured)?;
        }
        record.captured = Some(CapturedLayer { diff_id: captured.diff_id, size: captured.descriptor.size });
        record.size = captured.written.size;
        self.write(key, &record)?;
        Ok((record, Some(captured)))
    }

    /// A step's record, whatever it stands upon.
    pub(crate) fn record(&self, key: &Key) -> Option<StepRecord> {
        let record: StepRecord = ledger::read(&self.step_path(key)).ok()??;
        self.find(key, record.upon.as_deref())
    }

    /// Takes over a step that was made elsewhere. Its layer is one of the store's, which is on disk.
    pub(crate) fn adopt(
        &self,
        store: &Store,
        key: &Key,
        mut record: StepRecord,
    ) -> std::result::Result<StepRecord, BuildError> {
        let _lock = self.lock_step(key)?;
        if let Some(layer) = &record.captured {
            let home = store.layer_home(&layer.diff_id).ok_or_else(|| {
                BuildError::new(Kind::NotFound, format!("layer {} is not there", layer.diff_id))
            })?;
            store.pin_layer(&layer.diff_id)?;
            let name = crate::container::names::random_id().as_str()[..24].to_owned();
            let link = self.root.join("layers").join(&name);
            std::os::unix::fs::symlink(&home, &link).map_err(|e| BuildError::io("make", &link, e))?;
            record.layer = Some(name);
        }
        record.boot.clone_from(&self.boot);
        record.synced = true;
        self.write(key, &record)?;
        Ok(record)
    }

    /// What a selection led to.
    pub(crate) fn content(&self, selection: &Key) -> Option<Key> {
        let text = fs::read_to_string(self.root.join("contents").join(selection.hex())).ok()?;
        Digest::from_hex(text.trim())
    }

    /// Remembers what a selection led to.
    pub(crate) fn remember_content(&self, selection: &Key, content: &Key) {
        let path = self.root.join("contents").join(selection.hex());
        // Only a short way; without it the files are read again.
        let new = self.root.join("making").join(crate::container::names::random_id().short());
        let _ = fs::write(&new, content.hex()).and_then(|()| fs::rename(&new, &path));
    }

    /// Digests of the files of a context at this place.
    pub(crate) fn context_file(&self, context: &Path) -> PathBuf {
        let mut keyer = cata_build::key::Keyer::new("context");
        keyer.bytes(context.as_os_str().as_encoded_bytes());
        self.root.join("contexts").join(keyer.key().hex())
    }

    /// This boot.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// What an address gave, if it can be believed.
    pub(super) fn remote(&self, key: &Key) -> Option<RemoteRecord> {
        let path = self.root.join("remote").join(format!("{}.json", key.hex()));
        let record: RemoteRecord = ledger::read(&path).ok()??;
        let believed = !self.boot.is_empty() && record.boot == self.boot;
        (believed && self.remote_directory(&record).is_dir()).then_some(record)
    }

    /// Where its files are.
    pub(super) fn remote_directory(&self, record: &RemoteRecord) -> PathBuf {
        self.root.join("remote").join(&record.dir)
    }

    /// Fetched files get their place.
    pub(super) fn publish_remote(&self, making: &Making) -> std::result::Result<String, BuildError> {
        let to = self.root.join("remote").join(&making.name);
        fs::rename(making.diff(), &to).map_err(|e| BuildError::io("name", &to, e))?;
        Ok(making.name.clone())
    }

    /// Remembers what an address gave.
    pub(super) fn remember_remote(
        &self,
        key: &Key,
        record: &RemoteRecord,
    ) -> std::result::Result<(), BuildError> {
        let path = self.root.join("remote").join(format!("{}.json", key.hex()));
        let new = self.root.join("making").join(crate::container::names::random_id().short());
        let text = serde_json::to_vec(record)
            .map_err(|source| BuildError::from(Error::Record { path: path.clone(), source }))?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| BuildError::io("write", &path, e))
    }

    /// Every record of `remote/`, by its path.
    pub(super) fn remotes(&self) -> Vec<(PathBuf, RemoteRecord)> {
        let entries = fs::read_dir(self.root.join("remote")).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some());
        paths
            .filter_map(|path| ledger::read::<RemoteRecord>(&path).ok()?.map(|record| (path, record)))
            .collect()
    }

    /// Removes files of `remote/` that no record names, and records that name none.
    pub(super) fn collect_remotes(&self) {
        let records = self.remotes();
        for entry in fs::read_dir(self.root.join("remote")).into_iter().flatten().flatten() {
            let path = entry.path();
            // What cannot be removed now is tried again by the next build.
            if path.is_dir() && !records.iter().any(|(_, record)| *record.dir == *entry.file_name()) {
                let _ = fs::remove_dir_all(&path);
            }
        }
        for (path, record) in records {
            if !self.remote_directory(&record).is_dir() {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// An empty directory.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// The directory of a cache mount, made when it is new, and the lock if it is not shared.
    pub(crate) fn cache_mount(
        &self,
        id: &str,
        sharing: cata_build::metadata::Sharing,
        make: impl Fn(&Path) -> std::result::Result<(), BuildError>,
    ) -> std::result::Result<(PathBuf, Option<File>), BuildError> {
        use cata_build::metadata::Sharing;
        let mut keyer = cata_build::key::Keyer::new("cache");
        keyer.text(id);
        let hash = keyer.key().hex();
        for number in 0..1000 {
            let name = if number == 0 { hash.clone() } else { format!("{hash}-{number}") };
            let home = self.root.join("caches").join(name);
            fs::create_dir_all(&home).map_err(|e| BuildError::io("make", &home, e))?;
            let lock = self.lock_file(&home.join("lock"))?;
            let got = match sharing {
                Sharing::Shared => {
                    // Only while it is made.
                    rustix::io::retry_on_intr(|| rustix::fs::flock(lock.as_fd(), FlockOperation::LockShared))
                }
                Sharing::Locked => rustix::io::retry_on_intr(|| {
                    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive)
                }),
                Sharing::Private => rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive),
            };
            match got {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(errno) => return Err(BuildError::io("lock", &home, errno)),
            }
            let data = home.join("data");
            if !data.is_dir() {
                make(&data)?;
                let _ = fs::write(home.join("id"), id);
            }
            return Ok((data, (sharing != Sharing::Shared).then_some(lock)));
        }
        Err(BuildError::new(Kind::Exhausted, format!("too many private caches of `{id}` are in use")))
    }

    /// Layers that were complete a while ago are most likely on disk: one sync, which then costs little, and
    /// they are believed after a reboot too. While others write a lot, it would cost what theirs costs: then it waits
    /// for a later build, but not for ever.
    pub(crate) fn seal_older(&self, than: Duration) -> Result<()> {
        let than = if is_calm() { than } else { than * BUSY };
        let dir = self.root.join("steps");
        let mut waiting = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))?.flatten() {
            let path = entry.path();
            if path.extension().is_some() {
                continue;
            }
            let Ok(Some(record)) = ledger::read::<StepRecord>(&path) else { continue };
            let old = entry
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|a| a > than));
            if !record.synced && record.boot == self.boot && old {
                waiting.push((path, record));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let handle = File::open(&dir).map_err(Error::file("open", &dir))?;
        rustix::fs::syncfs(handle.as_fd()).map_err(Error::file("sync", &dir))?;
        for (path, record) in waiting {
            // Another build may have captured its layer meanwhile: the record is read again.
            if let Ok(Some(now)) = ledger::read::<StepRecord>(&path)
                && now.layer == record.layer
                && let Some(key) = path.file_name().and_then(|name| Digest::from_hex(name.to_str()?))
            {
                self.write(&key, &StepRecord { synced: true, ..now })?;
            }
        }
        Ok(())
    }

    /// Every step with its key and the time it was last used.
    pub(crate) fn steps(&self) -> Result<Vec<(Key, StepRecord, SystemTime)>> {
        let dir = self.root.join("steps");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))?.flatten() {
            let Some(key) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            let Ok(Some(record)) = ledger::read::<StepRecord>(&entry.path()) else { continue };
            let used = entry.metadata().and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
            found.push((key, record, used));
        }
        found.sort_by_key(|(_, _, used)| *used);
        Ok(found)
    }

    /// Every cache mount: its directory, its id, and the time it was last used.
    pub(crate) fn cache_mounts(&self) -> Vec<(PathBuf, String, SystemTime)> {
        let entries = fs::read_dir(self.root.join("caches")).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                let path = entry.path();
                let id = fs::read_to_string(path.join("id")).unwrap_or_default();
                let used = fs::metadata(path.join("data")).and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
                (path, id, used)
            })
            .collect()
    }

    /// Forgets a step. Its layer goes with the last record that has it.
    pub(crate) fn forget(&self, key: &Key) -> Result<()> {
        let path = self.step_path(key);
        fs::remove_file(&path).map_err(Error::file("remove", path))
    }

    /// Removes layers that no record has, and short ways that lead nowhere.
    pub(crate) fn collect(&self) -> Result<()> {
        let steps = self.steps()?;
        let dir = self.root.join("layers");
        for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))?.flatten() {
            let name = entry.file_name();
            if steps.iter().any(|(_, record, _)| record.layer.as_deref() == name.to_str()) {
                continue;
            }
            let path = entry.path();
            let gone = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
            gone.map_err(Error::file("remove", path))?;
        }
        if steps.is_empty() {
            for entry in fs::read_dir(self.root.join("contents")).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Whether little waits to be written to any disk.
fn is_calm() -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    kibibytes("Dirty:") + kibibytes("Writeback:") < CALM
}

/// Held while a step is made.
#[derive(Debug)]
pub(crate) struct StepLock {
    path: PathBuf,
    _file: File,
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // Whoever waits for it looks for the record first and makes the step itself if there is none.
        let _ = fs::remove_file(&self.path);
    }
}
