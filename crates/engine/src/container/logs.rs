//! `logs`: what a container wrote.

use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use cata_sandbox::log;
use cata_sandbox::stamp::Stamp;

pub use cata_sandbox::log::{Entry, Stream};

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::request::CreateRequest;

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions<'a> {
    /// The last so many entries.
    pub tail: Option<usize>,
    /// From this time on (nanoseconds since 1970).
    pub since: Option<i64>,
    /// Up to this time.
    pub until: Option<i64>,
    /// As it grows, until the container has ended.
    pub follow: bool,
    /// Readable, or hung up: whoever follows has lost interest.
    pub cancel: Option<BorrowedFd<'a>>,
}

impl Engine {
    /// Hands a container's log to `each`, entry by entry; `each` ends it by returning false.
    ///
    /// # Errors
    /// [`Error::State`] when nothing is kept (`--log-driver none`); a log that cannot be read.
    pub fn logs(
        &self,
        container: &str,
        options: LogOptions<'_>,
        each: &mut dyn FnMut(&Entry) -> bool,
    ) -> Result<()> {
        let record = self.find(container)?;
        if !keeps_log(&record.request) {
            return Err(Error::State {
                what: "configured logging driver does not support reading".to_owned(),
                hint: Some("the container was created with --log-driver none".to_owned()),
            });
        }
        let (_, owner) = self.status(&record.id)?;
        let follow: Option<PathBuf> =
            (options.follow && owner == Owner::Alive).then(|| self.paths.live(&record.id));
        let options = log::Options {
            tail: options.tail,
            since: options.since.map(Stamp),
            until: options.until.map(Stamp),
            follow,
            cancel: options.cancel,
        };
        let dir = log::directory(&self.paths.container(&record.id));
        let mut sink =
            |entry: Entry| if each(&entry) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        log::read(&dir, &options, &mut sink)
            .map_err(|e| Error::Sandbox(Foreign::new(Kind::Internal, None, &e)))
    }
}

/// Whether a container's output is kept.
fn keeps_log(request: &CreateRequest) -> bool {
    request.log != Some(cata_sandbox::launch::LogPlan::None)
}
