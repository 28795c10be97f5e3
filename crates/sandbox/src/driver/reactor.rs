//! The epoll instance: who is registered, and what became ready.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::log::Stream;
use crate::moment::Moment;

/// Events taken at once.
const AT_ONCE: usize = 16;

/// What a registered descriptor stands for. Ids are never used twice, so that an event that was under way
/// when its source went finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Signal,
    Listener,
    Service,
    Probe,
    Output(Stream),
    Connection(u32),
    Tap(u32),
    Session(u32),
    /// The socket of an exec session in a virtual machine.
    Report(u32),
    /// The socket of the virtual machine.
    Machine,
}

impl Source {
    fn pack(self) -> u64 {
        let (kind, id) = match self {
            Self::Signal => (0, 0),
            Self::Listener => (1, 0),
            Self::Service => (2, 0),
            Self::Probe => (3, 0),
            Self::Output(Stream::Stdout) => (4, 0),
            Self::Output(Stream::Stderr) => (4, 1),
            Self::Connection(id) => (5, id),
            Self::Tap(id) => (6, id),
            Self::Session(id) => (7, id),
            Self::Report(id) => (8, id),
            Self::Machine => (9, 0),
        };
        kind << 32 | u64::from(id)
    }

    fn unpack(data: u64) -> Option<Self> {
        let id = u32::try_from(data & 0xffff_ffff).ok()?;
        Some(match (data >> 32, id) {
            (0, _) => Self::Signal,
            (1, _) => Self::Listener,
            (2, _) => Self::Service,
            (3, _) => Self::Probe,
            (4, 0) => Self::Output(Stream::Stdout),
            (4, _) => Self::Output(Stream::Stderr),
            (5, id) => Self::Connection(id),
            (6, id) => Self::Tap(id),
            (7, id) => Self::Session(id),
            (8, id) => Self::Report(id),
            (9, _) => Self::Machine,
            _ => return None,
        })
    }
}

/// What of a descriptor is waited for; its end always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    End,
    Read,
    Write,
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::End => epoll::EventFlags::empty(),
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

pub(super) struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, fd: impl AsFd, source: Source, interest: Interest) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(source.pack()), interest.flags())
    }

    pub(super) fn change(&self, fd: impl AsFd, source: Source, interest: Interest) {
        // Fails only for a descriptor that is not registered: nothing to change.
        let data = epoll::EventData::new_u64(source.pack());
        let _ = epoll::modify(&self.epoll, fd, data, interest.flags());
    }

    /// Must come before a descriptor is closed if a copy of it lives elsewhere.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // As in `change`.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What is ready, after at most this time.
    pub(super) fn wait(&self, at_most: Option<Duration>) -> Vec<Source> {
        let timeout = at_most.map(|span| Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        });
        let mut events: Vec<epoll::Event> = Vec::with_capacity(AT_ONCE);
        // Interrupted is as good as nothing: the loop comes back.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
        events.iter().filter_map(|event| Source::unpack(event.data.u64())).collect()
    }
}

/// The monotonic clock.
pub(super) fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Moment(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}
