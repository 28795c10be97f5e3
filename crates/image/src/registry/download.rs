//! A blob from a registry into `ingest/`, resumed after a cut, verified, and handed on while it arrives.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use cata_spec::Digest;
use cata_spec::image::Descriptor;
use rustix::fs::FlockOperation;
use ureq::http::{Method, StatusCode};

use super::client::{Ask, Client};
use crate::error::{Error, RegistryError, StoreError};
use crate::layer::unpack::CHUNK;
use crate::progress::{Event, Progress};
use crate::store::{Hasher, Store};

/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 5;

/// A partial download, owned alone.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    digest: Digest,
}

impl Partial {
    /// Opens or makes the partial file of a blob and waits until no other process works on it. `None`: the
    /// other process finished it meanwhile.
    pub(crate) fn open(store: &Store, digest: &Digest) -> Result<Option<Self>, StoreError> {
        let path = store.ingest().join(format!("sha256-{}", digest.hex()));
        let io = |e: std::io::Error| StoreError::io("opening", &path, e);
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(io)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive))
                .map_err(|errno| io(errno.into()))?;
            if store.has_blob(digest) {
                // What was opened may be a new, empty file beside the finished blob.
                if is_same(&file, &path) {
                    let _ = std::fs::remove_file(&path);
                }
                return Ok(None);
            }
            if is_same(&file, &path) {
                return Ok(Some(Self { file, path, digest: *digest }));
            }
        }
    }

    fn io(&self, action: &'static str, error: impl Into<std::io::Error>) -> StoreError {
        StoreError::io(action, &self.path, error.into())
    }

    /// Throws away what is there: it was found to be wrong.
    pub(crate) fn reset(&self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(|e| self.io("truncating", e))
    }

    /// Makes it a blob.
    pub(crate) fn publish(&self, store: &Store) -> Result<(), StoreError> {
        store.publish_blob(&self.file, &self.path, &self.digest)
    }
}

/// Whether the name still leads to the open file.
fn is_same(file: &File, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// One download.
pub(crate) struct Download<'d> {
    pub(crate) client: &'d Client,
    pub(crate) blob: &'d Descriptor,
    pub(crate) progress: &'d dyn Progress,
    pub(crate) retry_pause: Duration,
    /// Receives the bytes in order; false: nobody wants any more of them, go on without.
    pub(crate) sink: &'d mut dyn FnMut(Vec<u8>) -> bool,
    /// Asked now and then: true gives up.
    pub(crate) abandoned: &'d dyn Fn() -> bool,
}

/// How a download ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Whole and verified.
    Complete,
    /// The bytes of an earlier command were wrong, and are thrown away: start again.
    StaleStart,
    /// Nobody wants it any more.
    Abandoned,
}

struct State {
    have: u64,
    hasher: Hasher,
    wanted: bool,
}

impl Download<'_> {
    /// Downloads what is missing and verifies all of it.
    pub(crate) fn run(&mut self, partial: &mut Partial) -> Result<Outcome, Error> {
        let mut state = State { have: 0, hasher: Hasher::new(), wanted: true };
        self.read_back(partial, &mut state)?;
        let inherited = state.have;
        let mut attempt = 1;
        while state.have < self.blob.size {
            let before = state.have;
            match self.attempt(partial, &mut state) {
                Ok(Outcome::Complete) => break,
                Ok(other) => return Ok(other),
                Err(Error::Registry(error)) if is_transient(&error) => {
                    attempt = if state.have > before { 1 } else { attempt + 1 };
                    if attempt > ATTEMPTS {
                        return Err(error.into());
                    }
                    let reason = chain(&error);
                    self.progress.event(Event::Retrying { digest: self.blob.digest, attempt, reason });
                    std::thread::sleep(self.retry_pause * 2u32.pow(attempt.min(5) - 1));
                }
                Err(error @ Error::Store(StoreError::NoSpace { .. })) => {
                    // What cannot be finished must not keep the disk full.
                    let _ = std::fs::remove_file(&partial.path);
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        let actual = state.hasher.finish();
        if actual == self.blob.digest {
            return Ok(Outcome::Complete);
        }
        partial.reset()?;
        if inherited > 0 {
            return Ok(Outcome::StaleStart);
        }
        let _ = std::fs::remove_file(&partial.path);
        let (registry, expected) = (self.client.host().to_owned(), self.blob.digest);
        Err(RegistryError::DigestMismatch { registry, what: "blob", expected, actual }.into())
    }

    /// What an earlier command left is read, hashed and handed on like the rest.
    fn read_back(&mut self, partial: &mut Partial, state: &mut State) -> Result<(), Error> {
        let length = partial.file.metadata().map_err(|e| partial.io("reading", e))?.len();
        if length > self.blob.size {
            partial.reset()?;
        }
        partial.file.seek(SeekFrom::Start(0)).map_err(|e| partial.io("reading", e))?;
        loop {
            let mut chunk = vec![0u8; CHUNK];
            let n = partial.file.read(&mut chunk).map_err(|e| partial.io("reading", e))?;
            if n == 0 {
                return Ok(());
            }
            chunk.truncate(n);
            self.take(chunk, state);
        }
    }

    /// One request, until its body ends or breaks.
    fn attempt(&mut self, partial: &Partial, state: &mut State) -> Result<Outcome, Error> {
        let path = self.client.path(&format!("blobs/{}", self.blob.digest));
        let mut ask = Ask::new(Method::GET, path.as_str());
        if state.have > 0 {
            ask = ask.header("Range", format!("bytes={}-", state.have));
        }
        let response = self.client.send(ask)?;
        let mut skip = match response.status() {
            StatusCode::OK => state.have,
            StatusCode::PARTIAL_CONTENT if starts_at(&response, state.have) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(self.client.unreachable("the registry sent another range than asked for").into());
            }
            _ => return Err(self.client.unexpected(&format!("GET {path}"), response).into()),
        };
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        loop {
            let mut chunk = vec![0u8; CHUNK];
            let (filled, broken) = fill(&mut body, &mut chunk);
            chunk.truncate(filled);
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(filled);
            chunk.drain(..skipped);
            skip -= skipped as u64;
            if state.have + chunk.len() as u64 > self.blob.size {
                partial.reset()?;
                return Err(self.wrong_size(state.have + chunk.len() as u64));
            }
            if !chunk.is_empty() {
                write_at(partial, &chunk, state.have)?;
                self.take(chunk, state);
            }
            if (self.abandoned)() {
                return Ok(Outcome::Abandoned);
            }
            if let Some(error) = broken {
                return Err(self.client.unreachable(error).into());
            }
            if filled == 0 {
                // A body that ends early without an error is one whose length the registry did not tell.
                return if state.have == self.blob.size {
                    Ok(Outcome::Complete)
                } else {
                    Err(self.wrong_size(state.have))
                };
            }
        }
    }

    fn take(&mut self, chunk: Vec<u8>, state: &mut State) {
        state.hasher.update(&chunk);
        state.have += chunk.len() as u64;
        self.progress.event(Event::Downloaded { digest: self.blob.digest, bytes: state.have });
        if state.wanted {
            state.wanted = (self.sink)(chunk);
        }
    }

    fn wrong_size(&self, actual: u64) -> Error {
        let (registry, digest) = (self.client.host().to_owned(), self.blob.digest);
        RegistryError::SizeMismatch { registry, digest, expected: self.blob.size, actual }.into()
    }
}

/// Reads until the buffer is full, the stream ends, or it breaks; what came before a break is kept.
fn fill(input: &mut impl std::io::Read, buffer: &mut [u8]) -> (usize, Option<std::io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

fn write_at(partial: &Partial, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    std::os::unix::fs::FileExt::write_all_at(&partial.file, bytes, at).map_err(|e| partial.io("writing", e))
}

fn starts_at(response: &ureq::http::Response<ureq::Body>, offset: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    range
        .and_then(|text| text.trim().strip_prefix("bytes "))
        .and_then(|text| text.split('-').next()?.trim().parse::<u64>().ok())
        == Some(offset)
}

/// Worth another attempt.
fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } => true,
        RegistryError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
        _ => false,
    }
}

/// The error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
