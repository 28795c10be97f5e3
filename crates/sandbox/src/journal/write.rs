//! The writing end: one `write` an event.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{BEFORE, Entry, KEPT, LIVE, LONGEST};

/// See [`super::write`]; `most` is what a file may grow to.
pub(super) fn append(directory: &Path, entry: &Entry, most: u64) {
    let Some(record) = record(entry) else { return };
    let Ok(mut file) = open(directory) else { return };
    if file.write_all(&record).is_ok() && file.metadata().is_ok_and(|now| now.len() > most) {
        // The next writer finds it too long as well.
        let _ = rotate(directory, &file);
    }
}

/// PURE: the bytes of a record, its own newlines around it.
pub(super) fn record(entry: &Entry) -> Option<Vec<u8>> {
    let mut record = vec![b'\n'];
    serde_json::to_writer(&mut record, entry).ok()?;
    if record.len() > LONGEST {
        let mut short = entry.clone();
        short.attributes.retain(|key, value| KEPT.contains(&key.as_str()) && value.len() < LONGEST / 16);
        record.truncate(1);
        serde_json::to_writer(&mut record, &short).ok()?;
    }
    record.push(b'\n');
    Some(record)
}

fn open(directory: &Path) -> io::Result<File> {
    let live = directory.join(LIVE);
    let mut options = File::options();
    let options = options.append(true).create(true).mode(0o600);
    match options.open(&live) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            options.open(&live)
        }
        outcome => outcome,
    }
}

/// Whoever has the file's lock, and sees that the name still means this file, is the only one who may rename it:
/// every other finds the lock taken, or the name another file's.
fn rotate(directory: &Path, file: &File) -> io::Result<()> {
    if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let live = directory.join(LIVE);
    if fs::metadata(&live)?.ino() == file.metadata()?.ino() {
        fs::rename(live, directory.join(BEFORE))?;
    }
    Ok(())
}
