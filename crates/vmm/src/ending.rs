//! The end of a machine, told once: by a processor, a device, or from outside.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::End;

/// Where the end is told, and where it is heard.
#[derive(Debug, Clone)]
pub(crate) struct Ending(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    end: Mutex<Option<End>>,
    signal: EventFd,
}

impl Ending {
    pub(crate) fn new() -> io::Result<Ending> {
        let signal = EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Ending(Arc::new(Inner { end: Mutex::new(None), signal })))
    }

    /// The first cause counts.
    pub(crate) fn set(&self, end: End) {
        self.0.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        let _ = self.0.signal.write(1);
    }

    pub(crate) fn get(&self) -> Option<End> {
        self.0.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable from the end on.
    pub(crate) fn signal(&self) -> &EventFd {
        &self.0.signal
    }
}
