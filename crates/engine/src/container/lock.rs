//! One container, one change at a time: flock on its directory. Reads take no lock.

use std::fs::File;
use std::time::{Duration, Instant};

use cata_spec::ContainerId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Held while a container is changed; given back when dropped, or when its holder dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _dir: File,
}

/// No change of a container takes longer than this, stops aside, which are the supervisor's.
const DEADLINE: Duration = Duration::from_secs(30);

impl Engine {
    /// Waits for the container's lock, at most 30 s.
    pub(crate) fn lock(&self, id: &ContainerId) -> Result<Lock> {
        let start = Instant::now();
        loop {
            if let Some(lock) = self.try_lock(id)? {
                return Ok(lock);
            }
            if start.elapsed() > DEADLINE {
                return Err(Error::Timeout(format!("another command working on container {}", id.short())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The lock, unless somebody has it.
    pub(crate) fn try_lock(&self, id: &ContainerId) -> Result<Option<Lock>> {
        let path = self.paths.container(id);
        let dir = match File::open(&path) {
            Ok(dir) => dir,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(id.to_string()));
            }
            Err(error) => return Err(Error::file("open", path)(error)),
        };
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _dir: dir })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::file("lock", path)(errno)),
        }
    }
}
