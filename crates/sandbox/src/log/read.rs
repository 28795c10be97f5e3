//! The reading end, for `cata logs`: works on files alone, across rotation, beside a writer that knows
//! nothing of it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::Deserialize;

use super::{Stream, file};
use crate::client;
use crate::stamp::Stamp;
use crate::status;

/// No log has more files than this.
const MOST_FILES: u32 = 1000;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// Only the last so many entries of what is there already.
    pub tail: Option<usize>,
    /// Nothing older.
    pub since: Option<Stamp>,
    /// Nothing younger.
    pub until: Option<Stamp>,
    /// Go on until the container whose live state is in this directory has ended.
    pub follow: Option<PathBuf>,
    /// Readable, or hung up: whoever follows has lost interest.
    pub cancel: Option<BorrowedFd<'a>>,
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was read from the container.
    pub time: Stamp,
    /// Where from.
    pub stream: Stream,
    /// The exact bytes; ends in a newline unless it is a part of a longer line, or the last.
    pub bytes: Vec<u8>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file.
    #[error("cannot read {path}", path = .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The kernel's notices of change.
    #[error("cannot watch {path}", path = .0.display())]
    Watch(PathBuf, #[source] io::Error),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
    stream: Stream,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Hands the entries to `sink`, the oldest first, until they end or it breaks.
///
/// A line that is no entry (a torn write of a power cut) is stepped over.
///
/// # Errors
/// [`LogError`]; a log that was never written is empty, not an error.
pub fn read(
    dir: &Path,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let watch = match &options.follow {
        Some(state) => Some(Watch::new(dir, state)?),
        None => None,
    };
    let mut files = open_all(dir)?;
    if let Some(tail) = options.tail {
        skip_to_tail(dir, &mut files, tail)?;
    }
    let mut live = None;
    while let Some(next) = files.pop_front() {
        let mut reader = Tail::new(next);
        if reader.drain(options, sink).map_err(|e| LogError::Read(dir.into(), e))?.is_break() {
            return Ok(());
        }
        live = Some(reader);
    }
    match watch {
        Some(watch) => follow(dir, options, sink, &watch, live),
        None => Ok(()),
    }
}

/// Every file of the log, the oldest first, all of one moment: a rotation meanwhile means once more.
fn open_all(dir: &Path) -> Result<VecDeque<File>, LogError> {
    for _ in 0..20 {
        let mut files = VecDeque::new();
        let mut newest = None;
        for n in 0..MOST_FILES {
            match File::open(file(dir, n)) {
                Ok(open) => {
                    if n == 0 {
                        newest = inode(&open);
                    }
                    files.push_front(open);
                }
                // Between two renames of a rotation the live name is missing for a moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound && n == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(LogError::Read(file(dir, n), error)),
            }
        }
        let now = std::fs::metadata(file(dir, 0)).ok().map(|m| m.ino());
        if now == newest {
            return Ok(files);
        }
    }
    Ok(VecDeque::new())
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|m| m.ino())
}

/// Leaves only the last `tail` entries to be read.
fn skip_to_tail(dir: &Path, files: &mut VecDeque<File>, tail: usize) -> Result<(), LogError> {
    let failed = |e| LogError::Read(dir.into(), e);
    let mut wanted = tail;
    let mut kept = VecDeque::new();
    let mut live = true;
    while let Some(mut file) = files.pop_back() {
        if wanted == 0 && !live {
            break;
        }
        let (offset, found) = offset_of_last(&mut file, wanted).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        wanted -= found;
        live = false;
        kept.push_front(file);
    }
    *files = kept;
    Ok(())
}

/// Where the last `wanted` lines begin, and how many there are; read backwards in blocks.
fn offset_of_last(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    let mut block = [0_u8; 8192];
    let mut end = length;
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for at in (0..part.len()).rev() {
            if part[at] != b'\n' {
                continue;
            }
            if newlines == wanted {
                return Ok((start + at as u64 + 1, wanted));
            }
            newlines += 1;
        }
        end = start;
    }
    Ok((if wanted == 0 { length } else { 0 }, newlines.min(wanted)))
}

/// A file read as far as it is written.
struct Tail {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Tail {
    fn new(file: File) -> Self {
        Self { reader: BufReader::new(file), line: Vec::new() }
    }

    fn drain(
        &mut self,
        options: &Options<'_>,
        sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        loop {
            // An unfinished line stays in `line` for the next time.
            if self.reader.read_until(b'\n', &mut self.line)? == 0 || self.line.last() != Some(&b'\n') {
                return Ok(ControlFlow::Continue(()));
            }
            let entry = parse(&self.line);
            self.line.clear();
            let Some(entry) = entry else { continue };
            if options.since.is_some_and(|since| entry.time < since) {
                continue;
            }
            if options.until.is_some_and(|until| entry.time > until) {
                return Ok(ControlFlow::Break(()));
            }
            if sink(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<Entry> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let bytes = match line.raw {
        None => line.log.into_owned().into_bytes(),
        Some(raw) => raw
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?,
    };
    Some(Entry { time: Stamp::parse(&line.time)?, stream: line.stream, bytes })
}

fn follow(
    dir: &Path,
    options: &Options<'_>,
    sink: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    watch: &Watch,
    mut live: Option<Tail>,
) -> Result<(), LogError> {
    let failed = |e| LogError::Read(dir.into(), e);
    loop {
        // Ended is looked at before the last read, so that nothing written before the end is missed.
        let ended = watch.ended();
        if options.until.is_some_and(|until| Stamp::now() > until) {
            return Ok(());
        }
        // What is read must be looked at again after a rotation was seen: it was written to until then.
        let successors = match &live {
            Some(tail) => newer_than(dir, inode(tail.reader.get_ref()))?,
            None => open_all(dir)?,
        };
        if let Some(tail) = &mut live
            && tail.drain(options, sink).map_err(failed)?.is_break()
        {
            return Ok(());
        }
        for next in successors {
            let mut tail = Tail::new(next);
            if tail.drain(options, sink).map_err(failed)?.is_break() {
                return Ok(());
            }
            live = Some(tail);
        }
        if ended {
            return Ok(());
        }
        if watch.wait(options.cancel).is_break() {
            return Ok(());
        }
    }
}

/// Files that came after the one with this inode.
fn newer_than(dir: &Path, known: Option<u64>) -> Result<VecDeque<File>, LogError> {
    if std::fs::metadata(file(dir, 0)).ok().map(|m| m.ino()) == known {
        return Ok(VecDeque::new());
    }
    let mut files = open_all(dir)?;
    if let Some(at) = files.iter().position(|f| inode(f) == known) {
        files.drain(..=at);
    }
    Ok(files)
}

/// Notices of change in the log, and of the supervisor's end.
struct Watch {
    notices: std::os::fd::OwnedFd,
    supervisor: Option<std::os::fd::OwnedFd>,
    state_dir: PathBuf,
}

impl Watch {
    fn new(dir: &Path, state_dir: &Path) -> Result<Self, LogError> {
        let failed = |e: rustix::io::Errno| LogError::Watch(dir.into(), e.into());
        let notices =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        match inotify::add_watch(&notices, dir, flags) {
            // Without a log directory there is nothing to watch but the end.
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        // The open connection says at once when the supervisor leaves.
        let supervisor = client::connect_socket(state_dir).ok();
        Ok(Self { notices, supervisor, state_dir: state_dir.to_owned() })
    }

    fn ended(&self) -> bool {
        !status::alive(&self.state_dir)
    }

    fn wait(&self, cancel: Option<BorrowedFd<'_>>) -> ControlFlow<()> {
        let mut fds = vec![PollFd::new(&self.notices, PollFlags::IN)];
        if let Some(supervisor) = &self.supervisor {
            fds.push(PollFd::from_borrowed_fd(supervisor.as_fd(), PollFlags::IN));
        }
        let others = fds.len();
        fds.extend(cancel.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // The deadline is for a supervisor that could not be connected to, and for lost notices.
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut fds, Some(&second));
        let happened = |fds: &[PollFd<'_>]| fds.iter().any(|fd| !fd.revents().is_empty());
        if happened(&fds[others..]) {
            return ControlFlow::Break(());
        }
        let hung_up = happened(&fds[1..others]);
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&self.notices, &mut buffer).is_ok_and(|n| n > 0) {}
        if hung_up && !self.ended() {
            // The socket closes a little before the lock is let go.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        ControlFlow::Continue(())
    }
}
