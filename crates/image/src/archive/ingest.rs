//! A layer from a stream into the store: kept as a blob and unpacked in one pass.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use cata_spec::Digest;
use cata_spec::image::media_type;

use crate::error::{Error, StoreError};
use crate::layer::compression::Compression;
use crate::layer::unpack::{Unpacked, chunks, unpack};
use crate::recompress::Gzip;
use crate::store::{Hasher, Store};

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ingested {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: &'static str,
    pub(crate) diff_id: Digest,
}

/// Whether a plain layer is compressed on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Keep,
    Compress,
}

/// Takes chunks from `next` (empty: the end) and makes blob and layer of them.
pub(crate) fn layer(
    store: &Store,
    plain: Plain,
    mut next: impl FnMut() -> Result<Vec<u8>, Error>,
) -> Result<Ingested, Error> {
    let first = next()?;
    let compression = Compression::detect(&first);
    if matches!(compression, Compression::Bzip2 | Compression::Xz) {
        // No media type says that a layer is compressed so.
        return Err(crate::error::LayerError::Compression(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "layers are compressed with gzip or zstd",
        ))
        .into());
    }
    let (file, path) = store.ingest_file("layer-blob")?;
    let _cleanup = Cleanup(&path);
    let compress = compression == Compression::Plain && plain == Plain::Compress;
    let (kept, unpacked) = std::thread::scope(|scope| {
        let (sender, reader) = chunks();
        let unpacker = scope.spawn(|| unpack(store, reader));
        let (to_gzip, from_here) = sync_channel::<Vec<u8>>(8);
        let gzip = if compress { Some(scope.spawn(|| gzip(file.try_clone(), from_here))) } else { None };
        let mut copy = Copy { file: &file, path: &path, hasher: None, size: 0 };
        if !compress && compression != Compression::Plain {
            copy.hasher = Some(Hasher::new());
        }
        let pump = || -> Result<(), Error> {
            let mut chunk = first;
            while !chunk.is_empty() {
                if compress {
                    let _ = to_gzip.send(chunk.clone());
                } else {
                    copy.take(&chunk)?;
                }
                if sender.send(chunk).is_err() {
                    break;
                }
                chunk = next()?;
            }
            Ok(())
        };
        let pumped = pump();
        drop((sender, to_gzip));
        let unpacked = join(unpacker);
        let kept = pumped.and_then(|()| match gzip {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
                .map(|(digest, size)| (Some(digest), size))
                .map_err(|e| StoreError::io("writing", &path, e).into()),
            None => Ok((copy.hasher.map(Hasher::finish), copy.size)),
        });
        (kept, unpacked)
    });
    let (hashed, size) = kept?;
    let unpacked = unpacked?;
    let diff_id = unpacked.diff_id;
    // A plain layer is its own uncompressed form: one sum serves both.
    let digest = hashed.unwrap_or(diff_id);
    store.publish_blob(&file, &path, &digest)?;
    unpacked.publish(store, &diff_id)?;
    let media_type = match compression {
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::Plain if !compress => media_type::OCI_LAYER,
        _ => media_type::OCI_LAYER_GZIP,
    };
    Ok(Ingested { digest, size, media_type, diff_id })
}

fn join(thread: std::thread::ScopedJoinHandle<'_, Result<Unpacked, Error>>) -> Result<Unpacked, Error> {
    thread.join().unwrap_or(Err(Error::Layer(crate::error::LayerError::Truncated)))
}

fn gzip(file: std::io::Result<File>, chunks: Receiver<Vec<u8>>) -> std::io::Result<(Digest, u64)> {
    let mut gzip = Gzip::new(file?);
    for chunk in chunks {
        gzip.write(&chunk)?;
    }
    let (_, digest, size) = gzip.finish()?;
    Ok((digest, size))
}

struct Copy<'c> {
    file: &'c File,
    path: &'c Path,
    /// `None`: the layer is plain and hashed elsewhere.
    hasher: Option<Hasher>,
    size: u64,
}

impl Copy<'_> {
    fn take(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(chunk).map_err(|e| StoreError::io("writing", self.path, e))?;
        self.size += chunk.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
        }
        Ok(())
    }
}

/// Removes the file; if it became a blob, nothing is at that name any more.
struct Cleanup<'c>(&'c PathBuf);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
