//! `logs`: what a container wrote, each stream to its own.

use std::io::Write as _;

use cata_engine::container::logs::{Entry, LogOptions, Stream};
use clap::Args;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::parse;
use crate::render::error::Failure;
use crate::render::time;
use crate::session::Session;
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Put what log options add in front of each line (here none does: a space)
    #[arg(long)]
    details: bool,
    #[command(flatten)]
    range: Range,
    #[arg(required = true, value_name = "CONTAINER")]
    container: String,
}

/// Which part of what was written, and how: of one container as of those of a project.
#[derive(Debug, Args)]
pub(crate) struct Range {
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print nothing older (2006-01-02T15:04:05Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Print nothing younger (as for --since)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    /// Print only the last lines (a number, or "all")
    #[arg(short = 'n', long, value_name = "string", allow_hyphen_values = true)]
    tail: Option<String>,
    /// Put the time in front of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

impl Range {
    /// # Errors
    /// A moment that is none.
    pub(crate) fn options(&self) -> Result<LogOptions<'static>, Failure> {
        let (now, zone) = (time::now(), TimeZone::system());
        let moment = |text: &Option<String>| -> Result<Option<i64>, Failure> {
            let Some(text) = text.as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
            Ok(Some(i64::try_from(parse::time::parse(text, now, &zone)?).unwrap_or(i64::MAX)))
        };
        Ok(LogOptions {
            tail: tail(self.tail.as_deref()),
            since: moment(&self.since)?,
            until: moment(&self.until)?,
            follow: self.follow,
            cancel: None,
        })
    }
}

impl Verb for Logs {
    fn call(self, session: &Session) -> Outcome {
        let options = self.range.options()?;
        if self.range.follow {
            leave_with_the_reader();
        }
        let mut failed = None;
        let mut line_starts = [true; 2];
        session.engine()?.logs(&self.container, options, &mut |entry| {
            let start = match entry.stream {
                Stream::Stdout => line_starts.first_mut(),
                Stream::Stderr => line_starts.last_mut(),
            };
            let Some(start) = start else { return false };
            let stamp = (self.range.timestamps && *start).then_some(entry.time);
            let details = self.details && *start;
            *start = entry.bytes.ends_with(b"\n");
            match write(entry, stamp, details) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        match failed {
            Some(error) => Err(Failure::output(error)),
            None => Ok(Exit::OK),
        }
    }
}

/// Ends the program when whoever read its output has gone: a silent container would never let it notice.
pub(crate) fn leave_with_the_reader() {
    let watch = || {
        let output = std::io::stdout();
        let mut fds = [PollFd::new(&output, PollFlags::empty())];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
        if fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR)) {
            std::process::exit(0);
        }
    };
    // Without a thread the next line is what tells.
    let _ = std::thread::Builder::new().name("reader".to_owned()).spawn(watch);
}

/// Docker takes what is no number for "all".
fn tail(text: Option<&str>) -> Option<usize> {
    text.and_then(|text| text.parse().ok())
}

fn write(entry: &Entry, stamp: Option<cata_engine::Stamp>, details: bool) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(entry.bytes.len() + 40);
    if let Some(stamp) = stamp {
        let nanos = u64::try_from(stamp.unix_nanos()).unwrap_or_default();
        bytes.extend_from_slice(time::rfc3339(nanos).as_bytes());
        bytes.push(b' ');
    }
    if details {
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&entry.bytes);
    match entry.stream {
        Stream::Stdout => {
            let mut output = std::io::stdout().lock();
            output.write_all(&bytes)?;
            output.flush()
        }
        Stream::Stderr => std::io::stderr().lock().write_all(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tail_is_a_number_or_everything() {
        assert_eq!(tail(Some("5")), Some(5));
        assert_eq!(tail(Some("0")), Some(0));
        for all in [Some("all"), Some("-1"), None] {
            assert_eq!(tail(all), None);
        }
    }
}
