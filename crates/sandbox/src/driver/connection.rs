//! Clients: many at once, none of whom can make the loop wait. What a client does not take is queued up to a
//! bound, and then the client is dropped.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use cata_sys::message;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Driver;
use super::reactor::{Interest, Source};
use super::streams::null;
use crate::protocol::{Answer, Call, Failure, FailureKind, LONGEST, MOST_DESCRIPTORS, Reply};
use crate::state::{Phase, What};

/// Most clients at once.
const MOST: usize = 200;
/// Most answers waiting for one client.
const MOST_QUEUED: usize = 64;
/// Messages taken from one client before others have their turn.
const TURNS: u32 = 16;

struct Connection {
    id: u32,
    socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

pub(super) struct Connections {
    list: Vec<Connection>,
    next: u32,
    /// Given up to hang up on a client when no descriptor is left: whoever stays in the listener's queue would
    /// wake the loop for ever.
    spare: Option<OwnedFd>,
}

/// The engine's own connection is the first.
pub(super) const ENGINE: u32 = 0;

impl Connections {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), next: 0, spare: null().ok() }
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.list.iter().map(|connection| connection.id).collect()
    }
}

impl Driver {
    pub(super) fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(listener, flags) {
                // One too many is hung up on.
                Ok(_) if self.connections.list.len() >= MOST => {}
                Ok(socket) => self.connect(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE) if self.connections.spare.take().is_some() => {
                    // It says so whether or not somebody waits.
                    let waited = accept_with(listener, flags).map(drop);
                    self.connections.spare = null().ok();
                    if waited.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    pub(super) fn connect(&mut self, socket: OwnedFd) {
        let id = self.connections.next;
        self.connections.next += 1;
        if self.reactor.add(&socket, Source::Connection(id), Interest::Read).is_ok() {
            self.connections.list.push(Connection { id, socket, queue: VecDeque::new() });
        }
    }

    /// A client said something, can take something, or left.
    pub(super) fn serve(&mut self, id: u32) {
        self.flush(id);
        for _ in 0..TURNS {
            let Some(at) = self.connections.list.iter().position(|c| c.id == id) else { return };
            let socket = self.connections.list[at].socket.as_fd();
            match message::receive(socket, LONGEST, MOST_DESCRIPTORS) {
                Ok(Some((bytes, fds))) => match serde_json::from_slice::<Call>(&bytes) {
                    Ok(call) => {
                        drop(bytes);
                        self.handle(id, call, fds);
                        self.settle();
                    }
                    Err(error) => {
                        self.complain(&format!("a client sent something unintelligible: {error}"));
                        return self.disconnect(id);
                    }
                },
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => return self.disconnect(id),
            }
        }
    }

    pub(super) fn disconnect(&mut self, id: u32) {
        if let Some(at) = self.connections.list.iter().position(|c| c.id == id) {
            let connection = self.connections.list.swap_remove(at);
            self.reactor.remove(connection.socket.as_fd());
        }
        self.waiters.retain(|waiter| waiter.connection != id);
        self.forget_client_of_sessions(id);
        if id == ENGINE && matches!(self.state.phase, Phase::Created) {
            self.queue.push_back(What::EngineGone);
        } else if id == ENGINE && self.boots_first() {
            // Nobody has seen it run, and who asked for it does not want it any more.
            self.queue.push_back(What::Stop { signal: None, timeout: None, ignored: false });
        } else if id == ENGINE && self.leashed {
            let signal = Some(rustix::process::Signal::KILL.as_raw());
            self.queue.push_back(What::Stop { signal, timeout: Some(Some(Duration::ZERO)), ignored: false });
        }
    }

    pub(super) fn fail(&mut self, id: u32, number: u32, failure: Failure) {
        self.answer(id, number, Reply::Failed(failure), Vec::new());
    }

    /// Answers, now or when the client takes it.
    pub(super) fn answer(&mut self, id: u32, number: u32, reply: Reply, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.list.iter_mut().find(|c| c.id == id) else { return };
        let bytes = match serde_json::to_vec(&Answer { number, reply }) {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = Failure::new(FailureKind::System, error.to_string());
                serde_json::to_vec(&Answer { number, reply: Reply::Failed(failure) }).unwrap_or_default()
            }
        };
        if connection.queue.len() >= MOST_QUEUED {
            return self.disconnect(id);
        }
        connection.queue.push_back((bytes, fds));
        self.flush(id);
    }

    fn flush(&mut self, id: u32) {
        let Some(connection) = self.connections.list.iter_mut().find(|c| c.id == id) else { return };
        let before = connection.queue.len();
        let mut broken = false;
        while let Some((bytes, fds)) = connection.queue.front() {
            let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            match message::send(connection.socket.as_fd(), bytes, &fds) {
                Ok(()) => {
                    connection.queue.pop_front();
                }
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if before == 0 {
            return;
        }
        let interest = if connection.queue.is_empty() { Interest::Read } else { Interest::Both };
        self.reactor.change(&connection.socket, Source::Connection(id), interest);
        if broken {
            self.disconnect(id);
        }
    }
}
