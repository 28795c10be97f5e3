//! Digests of files: from the cache, or by reading on all cores.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cata_spec::Digest;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::ContextError;
use super::select::{Entry, open_file};
use super::stat_cache::StatCache;

/// Bytes read at a time.
const CHUNK: usize = 128 * 1024;
/// A file with more holes than this is read by its pieces.
const HOLES: u64 = 16 << 20;

/// A file whose digest is wanted.
pub(super) struct Wanted<'w> {
    pub(super) root: BorrowedFd<'w>,
    pub(super) name: String,
    pub(super) entry: &'w mut Entry,
}

/// Fills in the digests.
pub(super) fn fill(
    mut wanted: Vec<Wanted<'_>>,
    cache: Option<&mut StatCache>,
    threads: usize,
) -> Result<(), ContextError> {
    if let Some(cache) = cache.as_deref() {
        wanted.iter_mut().for_each(|file| file.entry.digest = cache.get(&file.entry.stat));
    }
    wanted.retain(|file| file.entry.digest.is_none());
    read_all(&wanted, threads)?.into_iter().zip(wanted).for_each({
        let mut cache = cache;
        move |(digest, file)| {
            file.entry.digest = Some(digest);
            if let Some(cache) = &mut cache {
                cache.put(&file.entry.stat, digest);
            }
        }
    });
    Ok(())
}

fn read_all(wanted: &[Wanted<'_>], threads: usize) -> Result<Vec<Digest>, ContextError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Digest)>> = Mutex::new(Vec::with_capacity(wanted.len()));
    let failure: Mutex<Option<ContextError>> = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        let mut mine = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = wanted.get(at) else { break };
            match read(file, &mut buffer) {
                Ok(digest) => mine.push((at, digest)),
                Err(errno) => {
                    let path = format!("{}/{}", file.name, String::from_utf8_lossy(&file.entry.path));
                    let path = path.trim_matches('/');
                    next.fetch_add(wanted.len(), Ordering::Relaxed);
                    lock(&failure).get_or_insert(ContextError::io(path, errno));
                    break;
                }
            }
        }
        lock(&done).append(&mut mine);
    };
    if wanted.len() < 64 || threads < 2 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, digest)| digest).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The digest of content and of what extended attributes a layer keeps.
fn read(file: &Wanted<'_>, buffer: &mut [u8]) -> Result<Digest, Errno> {
    let fd = open_file(file.root, &file.entry.path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (name, value) in kept(fd.as_fd())? {
        context.update(&name);
        context.update(&value);
    }
    context.update(b"\0content\0");
    let stat = &file.entry.stat;
    let (size, stored) = (unsigned(stat.st_size), unsigned(stat.st_blocks) * 512);
    if size > stored + HOLES {
        pieces(fd.as_fd(), size, &mut context, buffer)?;
    } else {
        stretch(fd.as_fd(), 0, u64::MAX, &mut context, buffer)?;
    }
    Ok(finish(context))
}

fn finish(context: ring::digest::Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::from_bytes(bytes)
}

/// The digest of what extended attributes of a directory a layer keeps; `None` without any.
pub(super) fn attributes(fd: BorrowedFd<'_>) -> Result<Option<Digest>, Errno> {
    let kept = kept(fd)?;
    if kept.is_empty() {
        return Ok(None);
    }
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for bytes in kept.iter().flat_map(|(name, value)| [name, value]) {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    }
    Ok(Some(finish(context)))
}

/// The extended attributes that a layer keeps, sorted.
fn kept(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Errno> {
    let mut names = [0; 1024];
    let length = match rustix::fs::flistxattr(fd, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut list: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).collect();
    list.sort_unstable();
    list.retain(|name| name.starts_with(b"user.") || *name == b"security.capability");
    let read = |name: &[u8]| {
        let mut value = vec![0; 64 * 1024];
        let text = std::str::from_utf8(name).map_err(|_| Errno::INVAL)?;
        let length = rustix::fs::fgetxattr(fd, text, &mut value)?;
        value.truncate(length);
        Ok((name.to_vec(), value))
    };
    list.into_iter().map(read).collect()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A file that is mostly holes: where its data is, and the data.
fn pieces(
    fd: BorrowedFd<'_>,
    size: u64,
    context: &mut ring::digest::Context,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    context.update(b"\0sparse\0");
    context.update(&size.to_le_bytes());
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(fd, SeekFrom::Hole(start))?.min(size);
        context.update(&start.to_le_bytes());
        context.update(&end.to_le_bytes());
        stretch(fd, start, end, context, buffer)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn stretch(
    fd: BorrowedFd<'_>,
    mut at: u64,
    end: u64,
    context: &mut ring::digest::Context,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut buffer[..most], at))?;
        context.update(&buffer[..read]);
        at += read as u64;
        // A small file needs no second look at its end: a growing one is found out by its times.
        if read < most {
            return Ok(());
        }
    }
    Ok(())
}
