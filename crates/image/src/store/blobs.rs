//! Blobs: files named by the digest of their content, visible only whole and verified.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use cata_spec::Digest;

use super::Store;
use crate::error::StoreError;

impl Store {
    /// Where the blob is or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.content().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// A small blob's content.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => StoreError::MissingBlob(*digest),
            _ => StoreError::io("reading", &path, e),
        })
    }

    /// The blob, open, and its size.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<(File, u64), StoreError> {
        let path = self.blob_path(digest);
        let io = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => StoreError::MissingBlob(*digest),
            _ => StoreError::io("opening", &path, e),
        };
        let file = File::open(&path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Ok((file, size))
    }

    /// Adds a small blob and returns its digest.
    pub(crate) fn add_blob(&self, content: &[u8]) -> Result<Digest, StoreError> {
        let digest = sha256(content);
        let path = self.blob_path(&digest);
        if !path.exists() {
            let (mut file, temporary) = self.ingest_file("blob")?;
            let done = file
                .write_all(content)
                .map_err(|e| StoreError::io("writing", &temporary, e))
                .and_then(|()| self.publish_blob(&file, &temporary, &digest));
            if done.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            done?;
        }
        Ok(digest)
    }

    /// Adds small blobs: all are written before any is waited for, for a journal takes them at once.
    pub(crate) fn add_blobs(&self, contents: &[&[u8]]) -> Result<(), StoreError> {
        std::thread::scope(|scope| {
            let adding: Vec<_> =
                contents.iter().map(|content| scope.spawn(|| self.add_blob(content))).collect();
            adding.into_iter().try_for_each(|thread| {
                let died = |_| Err(StoreError::damaged(&self.content(), "a writing thread died"));
                thread.join().unwrap_or_else(died).map(drop)
            })
        })
    }

    /// Makes a verified file of `ingest/` visible as a blob: fsync, then rename.
    pub(crate) fn publish_blob(&self, file: &File, from: &Path, digest: &Digest) -> Result<(), StoreError> {
        file.sync_data().map_err(|e| StoreError::io("syncing", from, e))?;
        self.name_blob(from, digest)
    }

    /// The same with a file that is on disk.
    pub(crate) fn name_blob(&self, from: &Path, digest: &Digest) -> Result<(), StoreError> {
        let to = self.blob_path(digest);
        std::fs::rename(from, &to).map_err(|e| StoreError::io("naming", &to, e))
    }

    /// A new file in `ingest/` whose name tells whose it is, so that it can be removed when its maker died.
    pub(crate) fn ingest_file(&self, purpose: &str) -> Result<(File, PathBuf), StoreError> {
        let path = self.ingest().join(temporary_name(purpose));
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| StoreError::io("making", &path, e))?;
        Ok((file, path))
    }
}

/// A name nobody else uses. Whoever makes such a file holds the lease or the index lock; so whoever has
/// that alone knows that what bears such a name was left by a process that died.
pub(crate) fn temporary_name(purpose: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{TEMPORARY}{purpose}-{}-{}-{count}", std::process::id(), now.as_nanos())
}

/// How temporary names begin.
pub(crate) const TEMPORARY: &str = "tmp-";

/// The digest of some bytes.
pub(crate) fn sha256(content: &[u8]) -> Digest {
    finish(ring::digest::digest(&ring::digest::SHA256, content).as_ref())
}

fn finish(sum: &[u8]) -> Digest {
    let mut bytes = [0u8; 32];
    bytes.copy_from_slice(sum);
    Digest::from_bytes(bytes)
}

/// A digest in the making.
#[derive(Clone)]
pub(crate) struct Hasher(ring::digest::Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        finish(self.0.finish().as_ref())
    }
}

/// Reads everything through a hasher.
pub(crate) fn hash_file(file: &mut File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..n]);
    }
}

/// Replaces `path` atomically and durably.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    write_atomic_after(path, content, || Ok(()))
}

/// As [`write_atomic`]; what `before` does is done when the name changes. Both wait for the disk at once.
pub(crate) fn write_atomic_after(
    path: &Path,
    content: &[u8],
    before: impl FnOnce() -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let temporary = dir.join(temporary_name("write"));
    let io = |e: std::io::Error| StoreError::io("writing", path, e);
    let write = || -> Result<(), StoreError> {
        let mut file = File::create(&temporary).map_err(io)?;
        file.write_all(content).map_err(io)?;
        std::thread::scope(|scope| {
            let before = scope.spawn(before);
            let written = file.sync_data().map_err(io);
            before.join().unwrap_or_else(|_| Err(StoreError::damaged(path, "a writing thread died")))?;
            written
        })?;
        std::fs::rename(&temporary, path).map_err(io)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| StoreError::io("syncing", dir, e))
}
