//! What a server keeps from one request to the next: the engine, execs that were asked for and not started yet, and
//! who waits for a container's first byte.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use cata_engine::container::exec::ExecOptions;
use cata_engine::{Attached, Engine, Streams};

/// One exec.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    pub(crate) container: String,
    pub(crate) options: ExecOptions,
    pub(crate) attach: [bool; 3],
    pub(crate) keys: Option<String>,
    pub(crate) started: bool,
    pub(crate) pid: i32,
    pub(crate) code: Option<i32>,
}

/// All of this server's.
pub(crate) type Execs = Mutex<HashMap<String, Exec>>;

/// Somebody who attached before the container runs.
pub(crate) struct Attacher {
    /// By which it is found again.
    pub(crate) number: u64,
    pub(crate) streams: Streams,
    /// The streams from the first byte on, or the word to ask for them.
    pub(crate) sender: mpsc::Sender<Option<Attached>>,
}

/// What one server has: the engine, and connections that wait for something. Containers are none of its own.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) execs: Execs,
    attachers: Mutex<HashMap<String, Vec<Attacher>>>,
    next: AtomicU64,
}

/// For threads that outlive a request.
pub(crate) type Shared = Arc<Server>;

/// A lock, whatever has become of who held it before.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, execs: Execs::default(), attachers: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// Somebody waits for a container's first byte.
    pub(crate) fn add_attacher(&self, id: &str, streams: Streams) -> (u64, mpsc::Receiver<Option<Attached>>) {
        let (sender, receiver) = mpsc::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let attacher = Attacher { number, streams, sender };
        locked(&self.attachers).entry(id.to_owned()).or_default().push(attacher);
        (number, receiver)
    }

    /// Nobody waits any more; false: a start has taken him already.
    pub(crate) fn forget_attacher(&self, id: &str, number: u64) -> bool {
        let mut attachers = locked(&self.attachers);
        let Some(list) = attachers.get_mut(id) else { return false };
        let before = list.len();
        list.retain(|attacher| attacher.number != number);
        let found = list.len() < before;
        if list.is_empty() {
            attachers.remove(id);
        }
        found
    }

    /// Who waits, for who starts it.
    pub(crate) fn take_attachers(&self, id: &str) -> Vec<Attacher> {
        locked(&self.attachers).remove(id).unwrap_or_default()
    }
}
