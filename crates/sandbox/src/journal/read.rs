//! The reading end: what is there, then what comes, across renames of the file.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::{BEFORE, Entry, LIVE};
use crate::stamp::Stamp;

/// Which part of a journal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// What is there from this moment on comes first (nanoseconds since 1970); `None`: only what comes.
    pub since: Option<i64>,
    /// Up to this moment; `None`: for ever.
    pub until: Option<i64>,
    /// Ends the reading when it can be read from, or hangs up.
    pub cancel: Option<BorrowedFd<'a>>,
}

/// Hands events to `each` until it returns false, or the query's end has come.
///
/// # Errors
/// The directory cannot be made or watched, or a file not be read.
pub fn read(directory: &Path, query: &Query<'_>, each: &mut dyn FnMut(Entry) -> bool) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags)?;
    // Before the first look: what comes between is told.
    let wanted = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, wanted)?;
    let mut reader = Reader::default();
    let mut found = reader.look(directory)?;
    if let Some(since) = query.since {
        found.retain(|entry| entry.at >= since && query.until.is_none_or(|until| entry.at <= until));
        // Written by many, each with its own moment.
        found.sort_by_key(|entry| entry.at);
        for entry in found {
            if !each(entry) {
                return Ok(());
            }
        }
    }
    loop {
        if !wait(&watch, query)? {
            return Ok(());
        }
        for entry in reader.look(directory)? {
            if query.until.is_none_or(|until| entry.at <= until) && !each(entry) {
                return Ok(());
            }
        }
    }
}

/// Waits until something was written; false: it is over.
fn wait(watch: &OwnedFd, query: &Query<'_>) -> io::Result<bool> {
    loop {
        let left = match query.until {
            None => None,
            Some(until) => {
                let left = until.saturating_sub(Stamp::now().unix_nanos());
                if left <= 0 {
                    return Ok(false);
                }
                Some(Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 })
            }
        };
        let mut fds = vec![PollFd::new(watch, PollFlags::IN)];
        fds.extend(query.cancel.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.get(1).is_some_and(|cancel| !cancel.revents().is_empty()) {
            return Ok(false);
        }
        // What it says is of no interest: the files are looked at.
        let mut news = [0_u8; 4096];
        while let Ok(1..) = rustix::io::read(watch.as_fd(), &mut news) {}
        return Ok(true);
    }
}

/// The files that may still be written to, the oldest first. Two at a time: the one that was renamed last may have a
/// writer that opened it before.
#[derive(Debug, Default)]
struct Reader {
    tails: VecDeque<Tail>,
}

impl Reader {
    /// What was written since the last look.
    fn look(&mut self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            for tail in &mut self.tails {
                tail.read(&mut entries)?;
            }
            let newest = self.tails.back().map(|tail| tail.inode);
            let live = open(&directory.join(LIVE))?;
            if live.as_ref().map(|tail| tail.inode) == newest {
                return Ok(entries);
            }
            // Renamed, or never looked at. What was live may have been renamed twice since.
            let before = open(&directory.join(BEFORE))?;
            let moved = |tail: &Tail| live.as_ref().is_some_and(|live| live.inode == tail.inode);
            if before.as_ref().is_some_and(moved) {
                // Between the two looks.
                continue;
            }
            let unknown = before.filter(|tail| self.tails.iter().all(|known| known.inode != tail.inode));
            let none = unknown.is_none() && live.is_none();
            self.tails.extend(unknown);
            self.tails.extend(live);
            while self.tails.len() > 2 {
                // Read to its end by the next turn at the latest, or at this one already.
                if let Some(mut oldest) = self.tails.pop_front() {
                    oldest.read(&mut entries)?;
                }
            }
            if none {
                return Ok(entries);
            }
        }
    }
}

/// A file, and how far it was read.
#[derive(Debug)]
struct Tail {
    file: File,
    inode: u64,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Tail {
    fn read(&mut self, entries: &mut Vec<Entry>) -> io::Result<()> {
        self.file.read_to_end(&mut self.begun)?;
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.begun.split_off(end + 1);
        let whole = std::mem::replace(&mut self.begun, rest);
        // An unfinished line of a killed writer is none.
        entries
            .extend(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<Tail>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Tail { file, inode, begun: Vec::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
