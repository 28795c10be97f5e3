//! Digests by what the system says of a file, so that files that have not changed are not read again.
//!
//! A file that was changed in the very moment it was read could be changed once more without a sign of it:
//! such a young one is not remembered. What is remembered but was not asked for is forgotten at the next
//! writing if it has not been used for a while.
//!
//! Files of finished layers never change: of those every digest is remembered ([`StatCache::of_layers`]), for as long
//! as a build lasts. They are seen through several overlays, whose devices differ, while inodes are the layer's own.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cata_spec::Digest;
use rustix::fs::Stat;

const MAGIC: &[u8; 8] = b"catast1\n";
const RECORD: usize = 8 * 7 + 32 + 4;
/// Younger than this is too young.
const YOUNG: Duration = Duration::from_millis(50);
/// Unused for so many writings: forgotten.
const KEPT: u32 = 20;
/// More files than this are not remembered: 400 MB of records.
const FILES_MAX: usize = 4 << 20;

/// What identifies an unchanged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Face {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since the epoch; wraps after 584 years.
    mtime: u64,
    ctime: u64,
}

impl Face {
    fn of(stat: &Stat) -> Self {
        #[allow(clippy::cast_sign_loss, reason = "a face is compared, not calculated with")]
        let nanos =
            |seconds: i64, nanos: u64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanos);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
            ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    digest: Digest,
    /// Writings since it was last asked for.
    unused: u32,
}

/// Digests of one context's files.
#[derive(Debug)]
pub struct StatCache {
    path: Option<PathBuf>,
    known: HashMap<Face, Known>,
    used: std::cell::RefCell<std::collections::HashSet<Face>>,
    changed: bool,
    /// Of files that never change, on one file system.
    layers: bool,
    /// What is not older cannot be trusted to show its next change.
    trusted_until: u64,
}

impl StatCache {
    /// Reads a cache; what cannot be read is as good as empty.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let mut cache = Self::in_memory();
        cache.path = Some(path.to_owned());
        let bytes = fs::read(path).unwrap_or_default();
        let Some(records) = bytes.strip_prefix(MAGIC) else { return cache };
        for record in records.chunks_exact(RECORD) {
            let number = |at: usize| {
                let mut eight = [0; 8];
                eight.copy_from_slice(&record[at * 8..at * 8 + 8]);
                u64::from_le_bytes(eight)
            };
            let mut digest = [0; 32];
            digest.copy_from_slice(&record[56..88]);
            let face = Face {
                device: number(0),
                inode: number(1),
                size: number(2),
                mtime: number(3),
                ctime: number(4),
            };
            let check = number(5) == sum(&face, &digest);
            if check {
                let unused = u32::try_from(number(6)).unwrap_or(KEPT);
                cache.known.insert(face, Known { digest: Digest::from_bytes(digest), unused });
            }
        }
        cache
    }

    /// One that is not kept.
    #[must_use]
    pub fn in_memory() -> Self {
        let now = SystemTime::now().checked_sub(YOUNG).unwrap_or(UNIX_EPOCH);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            path: None,
            known: HashMap::new(),
            used: std::cell::RefCell::default(),
            changed: false,
            layers: false,
            trusted_until: u64::try_from(now.as_nanos()).unwrap_or(0),
        }
    }

    /// One of the files of layers, which is not kept.
    #[must_use]
    pub fn of_layers() -> Self {
        Self { layers: true, ..Self::in_memory() }
    }

    fn face(&self, stat: &Stat) -> Face {
        let face = Face::of(stat);
        if self.layers { Face { device: 0, ..face } } else { face }
    }

    /// The digest of a file that has not changed.
    #[must_use]
    pub fn get(&self, stat: &Stat) -> Option<Digest> {
        let face = self.face(stat);
        let known = self.known.get(&face)?;
        self.used.borrow_mut().insert(face);
        Some(known.digest)
    }

    /// Takes over what another one knows.
    pub fn absorb(&mut self, other: Self) {
        if self.known.is_empty() {
            self.known = other.known;
        } else {
            self.known.extend(other.known);
        }
    }

    /// Remembers.
    pub fn put(&mut self, stat: &Stat, digest: Digest) {
        let face = self.face(stat);
        let young = face.mtime >= self.trusted_until || face.ctime >= self.trusted_until;
        if (young && !self.layers) || self.known.len() >= FILES_MAX {
            return;
        }
        self.known.insert(face, Known { digest, unused: 0 });
        self.used.borrow_mut().insert(face);
        self.changed = true;
    }

    /// Writes what there is to remember, if that has changed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else { return Ok(()) };
        let used = self.used.borrow();
        let mut bytes = Vec::with_capacity(MAGIC.len() + self.known.len() * RECORD);
        bytes.extend_from_slice(MAGIC);
        for (face, known) in &self.known {
            let unused = if used.contains(face) { 0 } else { known.unused + 1 };
            if unused > KEPT {
                continue;
            }
            let check = sum(face, known.digest.as_bytes());
            for number in
                [face.device, face.inode, face.size, face.mtime, face.ctime, check, u64::from(unused)]
            {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(known.digest.as_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// A check against torn writes: not cryptographic, for nobody but us writes there.
fn sum(face: &Face, digest: &[u8; 32]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |number: u64| sum = (sum ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    for number in [face.device, face.inode, face.size, face.mtime, face.ctime] {
        take(number);
    }
    for eight in digest.chunks_exact(8) {
        take(eight.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn young_files_are_remembered_of_layers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("young");
        let mut caches = [StatCache::in_memory(), StatCache::of_layers()];
        fs::write(&path, "x").unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        caches.iter_mut().for_each(|cache| cache.put(&stat, Digest::from_bytes([1; 32])));
        assert_eq!(caches.each_ref().map(|cache| cache.get(&stat).is_some()), [false, true]);
        // The same file through an overlay has another device.
        let (mut elsewhere, mut changed) = (stat, stat);
        elsewhere.st_dev += 1;
        changed.st_ctime_nsec += 1;
        let [_, layers] = caches;
        let mut all = StatCache::of_layers();
        all.absorb(layers);
        assert_eq!([elsewhere, changed].map(|stat| all.get(&stat).is_some()), [true, false]);
    }
}
