//! One layer from compressed bytes to a directory: decompression and hashing in one thread, making files in
//! another, with chunks handed over between them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cata_spec::Digest;

use super::apply::{Applied, apply};
use super::compression::Decoder;
use super::sparse::read_error;
use crate::error::{Error, LayerError, StoreError};
use crate::store::{Hasher, LayerRecord, Store, Unfinished, hash_file};

/// Bytes handed over at a time.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Chunks under way between two threads.
const CHUNKS_QUEUED: usize = 16;

/// A queue of chunks between two threads.
pub(crate) fn chunks() -> (SyncSender<Vec<u8>>, ChunkReader) {
    let (sender, receiver) = sync_channel(CHUNKS_QUEUED);
    (sender, ChunkReader { receiver, current: Vec::new(), at: 0 })
}

/// The reading end: chunks as one stream, which ends when the sender is dropped.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    receiver: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk, 0),
                Err(_) => break,
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Fills a chunk as far as the stream goes; empty at its end.
pub(crate) fn read_chunk(input: &mut (impl Read + ?Sized)) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0u8; CHUNK];
    let mut filled = 0;
    while filled < CHUNK {
        match input.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}

/// A layer unpacked but not yet visible.
#[derive(Debug)]
pub(crate) struct Unpacked {
    place: Unfinished,
    pub(crate) applied: Applied,
    /// The digest of its uncompressed content.
    pub(crate) diff_id: Digest,
}

impl Unpacked {
    /// Makes it visible if it is what it should be.
    pub(crate) fn publish(self, store: &Store, expected: &Digest) -> Result<(), Error> {
        let record = self.record(expected)?;
        Ok(store.publish_layer(self.place, expected, &record)?)
    }

    /// Puts it in the place of a layer that is damaged, if it is what it should be.
    pub(crate) fn replace(self, store: &Store, expected: &Digest) -> Result<(), Error> {
        let record = self.record(expected)?;
        Ok(store.replace_layer(&self.place, expected, &record)?)
    }

    fn record(&self, expected: &Digest) -> Result<LayerRecord, Error> {
        if self.diff_id != *expected {
            return Err(LayerError::DiffId { expected: *expected, actual: self.diff_id }.into());
        }
        Ok(LayerRecord::fresh(self.applied.size))
    }

    /// Where its files are for now.
    pub(crate) fn diff(&self) -> PathBuf {
        self.place.diff()
    }
}

/// Unpacks a stream of a layer, compressed or not, under a temporary name.
pub(crate) fn unpack(store: &Store, compressed: impl BufRead + Send) -> Result<Unpacked, Error> {
    let place = store.begin_layer()?;
    let (sender, reader) = chunks();
    let (diff_id, applied) = std::thread::scope(|scope| {
        let decompression = scope.spawn(move || decompress(compressed, &sender));
        let applied = apply(reader, &place.diff());
        let diff_id = decompression.join().unwrap_or(Err(LayerError::Truncated));
        (diff_id, applied)
    });
    match (diff_id, applied) {
        // The stream's own failure comes first: the entries' is a consequence.
        (Err(error), Ok(_)) => Err(error.into()),
        (Err(error @ LayerError::Compression(_)), Err(LayerError::Truncated)) => Err(error.into()),
        (_, Err(error)) => Err(error.into()),
        (Ok(diff_id), Ok(applied)) => Ok(Unpacked { place, applied, diff_id }),
    }
}

/// Decompresses and hashes. When the other end is gone the rest does not matter.
fn decompress(compressed: impl BufRead, to: &SyncSender<Vec<u8>>) -> Result<Digest, LayerError> {
    let mut input = Decoder::new(compressed).map_err(read_error)?;
    let mut hasher = Hasher::new();
    loop {
        let chunk = read_chunk(&mut input).map_err(read_error)?;
        if chunk.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&chunk);
        if to.send(chunk).is_err() {
            return Ok(hasher.finish());
        }
    }
}

/// Unpacks a blob of the store as the layer `diff_id`, unless that is there.
pub(crate) fn unpack_blob(store: &Store, blob: File, digest: &Digest, diff_id: &Digest) -> Result<(), Error> {
    if store.trusted_layer(diff_id).is_some() {
        return Ok(());
    }
    let mut again = blob.try_clone().map_err(|e| StoreError::io("opening", &store.blob_path(digest), e))?;
    let done =
        unpack(store, BufReader::with_capacity(CHUNK, blob)).and_then(|made| made.publish(store, diff_id));
    if let Err(Error::Layer(
        LayerError::Compression(_)
        | LayerError::Truncated
        | LayerError::NotTar(_)
        | LayerError::DiffId { .. },
    )) = &done
    {
        // Is it the blob that is damaged? Then that is what to say.
        let rewound = io::Seek::rewind(&mut again).and_then(|()| hash_file(&mut again));
        if let Ok(actual) = rewound
            && actual != *digest
        {
            return Err(StoreError::CorruptBlob { expected: *digest, actual }.into());
        }
    }
    done
}
