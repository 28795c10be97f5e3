//! The writing end: splits output into entries, rotates, and never blocks or fails its caller. What the disk
//! does not take is counted, and said in the log once the disk takes something again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::{LONGEST, Stream, file};
use crate::launch::LogPlan;
use crate::stamp::Stamp;
use crate::status::Lost;

/// Entries are gathered up to this size before a write.
const BATCH: usize = 16 * 1024;

/// The unfinished line of one stream.
#[derive(Debug)]
pub struct Input {
    stream: Stream,
    partial: Vec<u8>,
}

impl Input {
    /// Nothing read yet.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, partial: Vec::new() }
    }
}

/// The one writer of a container's log.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    max_size: u64,
    max_file: u32,
    live: Option<File>,
    size: u64,
    batch: Vec<u8>,
    batched: (u64, u64),
    lost: Lost,
    unreported: bool,
}

impl Writer {
    /// Opens the live file, appending to what an earlier run left. Never fails: what cannot be written later
    /// is counted. `None` when nothing is to be kept.
    #[must_use]
    pub fn open(dir: PathBuf, plan: &LogPlan) -> Option<Self> {
        let LogPlan::JsonFile { max_size, max_file } = *plan else { return None };
        let mut writer = Self {
            dir,
            // A file must take one entry at least, or every entry would rotate.
            max_size: max_size.max(1),
            max_file: max_file.max(1),
            live: None,
            size: 0,
            batch: Vec::new(),
            batched: (0, 0),
            lost: Lost::default(),
            unreported: false,
        };
        if let Err(error) = writer.reopen() {
            writer.lost.error = error.to_string();
        }
        Some(writer)
    }

    /// What could not be kept so far.
    #[must_use]
    pub fn lost(&self) -> Option<&Lost> {
        (self.lost.lines > 0).then_some(&self.lost)
    }

    /// Takes a piece of output.
    pub fn take(&mut self, input: &mut Input, mut bytes: &[u8], now: Stamp) {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if input.partial.is_empty() {
                self.line(input.stream, line, now);
            } else {
                let mut whole = std::mem::take(&mut input.partial);
                whole.extend_from_slice(line);
                self.line(input.stream, &whole, now);
            }
        }
        if !bytes.is_empty() {
            input.partial.extend_from_slice(bytes);
            while input.partial.len() >= LONGEST {
                let rest = input.partial.split_off(cut(&input.partial));
                let piece = std::mem::replace(&mut input.partial, rest);
                self.entry(input.stream, &piece, now);
            }
        }
        self.flush(now);
    }

    /// The stream ended: its unfinished line becomes an entry.
    pub fn end(&mut self, input: &mut Input, now: Stamp) {
        let partial = std::mem::take(&mut input.partial);
        if !partial.is_empty() {
            self.line(input.stream, &partial, now);
        }
        self.flush(now);
    }

    fn line(&mut self, stream: Stream, mut line: &[u8], now: Stamp) {
        while line.len() > LONGEST {
            let (piece, rest) = line.split_at(cut(line));
            self.entry(stream, piece, now);
            line = rest;
        }
        self.entry(stream, line, now);
    }

    fn entry(&mut self, stream: Stream, bytes: &[u8], now: Stamp) {
        let before = self.batch.len();
        format_entry(&mut self.batch, stream, bytes, now);
        let length = (self.batch.len() - before) as u64;
        let full = self.size + self.batch.len() as u64 > self.max_size && self.size + before as u64 > 0;
        if full {
            // The entry that does not fit goes into the next file.
            let entry = self.batch.split_off(before);
            self.flush(now);
            self.rotate();
            self.batch = entry;
        }
        self.batched.0 += 1;
        self.batched.1 += bytes.len() as u64;
        if self.batch.len() >= BATCH || length >= self.max_size {
            self.flush(now);
        }
    }

    fn flush(&mut self, now: Stamp) {
        if self.batch.is_empty() {
            return;
        }
        if self.unreported {
            self.report(now);
        }
        let (lines, bytes) = std::mem::take(&mut self.batched);
        let batch = std::mem::take(&mut self.batch);
        if let Err(error) = self.write(&batch) {
            self.lost.lines += lines;
            self.lost.bytes += bytes;
            self.lost.error = error.to_string();
            self.unreported = true;
        }
        self.batch = batch;
        self.batch.clear();
        // A burst shall not stay in memory for the container's life.
        self.batch.shrink_to(BATCH);
    }

    /// Says in the log that something is missing here.
    fn report(&mut self, now: Stamp) {
        let Lost { lines, bytes, error } = &self.lost;
        let text = format!("[cata: {lines} entries ({bytes} bytes) of output could not be kept: {error}]\n");
        let mut note = Vec::new();
        format_entry(&mut note, Stream::Stderr, text.as_bytes(), now);
        if self.write(&note).is_ok() {
            self.unreported = false;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.live.is_none() {
            self.reopen()?;
        }
        let Some(live) = &mut self.live else { return Err(io::ErrorKind::NotFound.into()) };
        match live.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half an entry would spoil the next one: back to the last whole one.
                let _ = live.set_len(self.size);
                Err(error)
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let live = File::options().create(true).append(true).open(file(&self.dir, 0))?;
        self.size = live.metadata()?.len();
        self.live = Some(live);
        Ok(())
    }

    fn rotate(&mut self) {
        self.live = None;
        let oldest = self.max_file - 1;
        if oldest == 0 {
            let _ = fs::remove_file(file(&self.dir, 0));
        } else {
            for n in (0..oldest).rev() {
                // A missing file leaves a gap that readers step over.
                let _ = fs::rename(file(&self.dir, n), file(&self.dir, n + 1));
            }
        }
        if let Err(error) = self.reopen() {
            self.lost.error = error.to_string();
        }
    }
}

/// Where to cut a line that is too long: not within a character, if it is text.
fn cut(bytes: &[u8]) -> usize {
    let end = LONGEST.min(bytes.len());
    (end.saturating_sub(3)..=end)
        .rev()
        .find(|&at| bytes.get(at).is_none_or(|&b| b & 0xc0 != 0x80))
        .unwrap_or(end)
}

/// Writes one entry with its newline.
pub(super) fn format_entry(out: &mut Vec<u8>, stream: Stream, bytes: &[u8], now: Stamp) {
    out.extend_from_slice(b"{\"log\":\"");
    let mut exact = true;
    for chunk in bytes.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            exact = false;
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",");
    if !exact {
        out.extend_from_slice(b"\"raw\":\"");
        for byte in bytes {
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        out.extend_from_slice(b"\",");
    }
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, "\"stream\":\"{}\",\"time\":\"{now}\"}}", stream.as_str());
}

/// Copies stretches that need no escape as a whole: a flood of output costs little more than its bytes.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Of a number below 16.
fn digit(number: u8) -> u8 {
    b"0123456789abcdef"[usize::from(number & 15)]
}
