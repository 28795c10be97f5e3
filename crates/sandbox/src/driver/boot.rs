//! A supervisor's first steps: its plan, its lock, its socket; and the record of what to undo, for the case
//! that it is killed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use cata_runtime::cgroup::CgroupPlan;
use cata_sys::message;
use cata_sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, chmodat, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Signal, getpid, set_child_subreaper};

use super::cage::Cage;
use super::connection::Connections;
use super::exec::Sessions;
use super::finish::chain;
use super::probe::Probes;
use super::reactor::{Interest, Reactor, Source};
use super::streams::{Output, nonblocking};
use super::{Driver, VecDeque};
use crate::client::short_address;
use crate::health::HealthRules;
use crate::journal::{self, Entry, Subject};
use crate::launch::{Launch, Undo};
use crate::log::{self, Writer};
use crate::protocol::{Answer, Failure, FailureKind, Reply, SOCKET};
use crate::recover::{self, Remains};
use crate::service::Make;
use crate::state::{Rules, State, Timer};
use crate::status::{self, Status};
use crate::undo;

/// How long the engine may take to make a network.
pub(super) const LAUNCH_PATIENCE: Duration = Duration::from_secs(120);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 32;
/// What `supervisor.log` may grow to.
const MOST_COMPLAINTS: u64 = 64 * 1024;

/// Why a supervisor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The plan.
    #[error("cannot read the plan: {0}")]
    Plan(String),
    /// Another supervisor owns this container.
    #[error("another supervisor owns this container")]
    Owned,
    /// Whoever started it was killed; nothing has been made for it.
    #[error("who started this supervisor is gone")]
    Orphaned,
    /// A system call.
    #[error("cannot {0}")]
    System(&'static str, #[source] std::io::Error),
    /// The cgroup.
    #[error("{0}")]
    Cgroup(String),
}

/// Where things are written.
pub(super) struct Files {
    pub(super) state_dir: PathBuf,
    pub(super) container_dir: PathBuf,
    undo_late: Vec<Undo>,
    cgroup: Option<CgroupPlan>,
}

impl Files {
    /// A line in `supervisor.log`, which exists only if there is something to say.
    pub(super) fn complain(&self, message: &str) {
        let path = self.container_dir.join("supervisor.log");
        let opened = File::options().create(true).append(true).open(path);
        if let Ok(mut file) = opened
            && file.metadata().is_ok_and(|data| data.len() < MOST_COMPLAINTS)
        {
            // With the disk full there is nobody left to tell.
            let _ = writeln!(file, "{} {message}", crate::stamp::Stamp::now());
        }
    }

    /// What somebody else must do if this supervisor is killed.
    pub(super) fn record_undo(&self, undo: &[Undo]) {
        let remains =
            Remains { undo: undo.to_vec(), undo_late: self.undo_late.clone(), cgroup: self.cgroup.clone() };
        if let Err(error) = remains.write(&self.state_dir) {
            self.complain(&format!("cannot record what to undo: {error}"));
        }
    }

    pub(super) fn forget_undo(&self) {
        let _ = fs::remove_file(self.state_dir.join(recover::FILE));
    }

    pub(super) fn take_late(&mut self) -> Vec<Undo> {
        std::mem::take(&mut self.undo_late)
    }
}

/// Reads the sealed plan, which can be read any number of times.
pub(super) fn read_plan(plan: BorrowedFd<'_>) -> Result<Box<Launch>, Failure> {
    let failed =
        |message: String| Failure::new(FailureKind::System, format!("cannot read the plan: {message}"));
    let length = rustix::fs::fstat(plan).map_err(|e| failed(e.to_string()))?.st_size;
    let mut text = vec![0_u8; usize::try_from(length).unwrap_or(0)];
    let mut read = 0;
    while read < text.len() {
        match rustix::io::pread(plan, &mut text[read..], read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))
}

/// Everything up to waiting for the word to go.
pub(super) fn boot(plan: OwnedFd, socket: OwnedFd, make_service: Make) -> Result<Driver, BootError> {
    let copy = plan.try_clone().map_err(|e| BootError::System("keep the plan", e))?;
    match prepare(plan, socket.as_fd(), make_service) {
        Ok(mut driver) => {
            nonblocking(&socket);
            driver.connect(socket);
            Ok(driver)
        }
        Err(error) => {
            if !matches!(error, BootError::Owned | BootError::Orphaned) {
                give_up(copy.as_fd());
            }
            // The engine's first call is number 1: this is its answer, given early.
            let failure = Failure::new(FailureKind::System, chain(&error));
            let answer = Answer { number: 1, reply: Reply::Failed(failure) };
            if let Ok(bytes) = serde_json::to_vec(&answer) {
                let _ = message::send(socket.as_fd(), &bytes, &[]);
            }
            Err(error)
        }
    }
}

/// A container that cannot begin is undone like one that has ended.
fn give_up(plan: BorrowedFd<'_>) {
    let Ok(launch) = read_plan(plan) else { return };
    // The engine is told why it failed; these are consequences.
    let _ = undo::perform(&launch.undo);
    let _ = undo::perform(&launch.undo_late);
    if let (Some(story), true) = (launch.story, launch.auto_remove) {
        let entry = Entry::now(Subject::Container, "destroy", launch.id.as_str(), story.attributes);
        journal::write(&story.journal, &entry);
    }
    let _ = fs::remove_file(launch.state_dir.join(recover::FILE));
}

/// Whether the other end of a socket is closed.
fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok_and(|count| count > 0)
        && polled[0].revents().contains(PollFlags::HUP)
}

fn prepare(plan: OwnedFd, engine: BorrowedFd<'_>, make_service: Make) -> Result<Driver, BootError> {
    let system = |what| move |error: rustix::io::Errno| BootError::System(what, error.into());
    let mut launch = read_plan(plan.as_fd()).map_err(|failure| BootError::Plan(failure.message))?;
    set_child_subreaper(Some(getpid())).map_err(system("become a reaper"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(&launch.state_dir, flags, Mode::empty()).map_err(system("open the state directory"))?;
    let lock = status::lock(&launch.state_dir)
        .map_err(|e| BootError::System("lock the state directory", e))?
        .ok_or(BootError::Owned)?;
    // Who comes so late may have a successor that waits for this lock.
    if is_gone(engine) {
        return Err(BootError::Orphaned);
    }
    let signals = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    let signals = SignalFd::new(&signals).map_err(|e| BootError::System("receive signals", e))?;
    let reactor = Reactor::new().map_err(system("make an epoll instance"))?;
    reactor.add(&signals, Source::Signal, Interest::Read).map_err(system("watch signals"))?;
    let listener = listen_at(&dir).map_err(system("listen"))?;
    reactor.add(&listener, Source::Listener, Interest::Read).map_err(system("watch the socket"))?;

    let files = Files {
        state_dir: launch.state_dir.clone(),
        container_dir: launch.container_dir.clone(),
        undo_late: std::mem::take(&mut launch.undo_late),
        cgroup: launch.plan.cgroup.as_ref().map(recover::bare),
    };
    let undo = std::mem::take(&mut launch.undo);
    // Before the first thing that would have to be undone.
    files.record_undo(&undo);
    let cage = Cage::create(launch.plan.cgroup.as_ref()).map_err(BootError::Cgroup)?;
    let log_dir = log::directory(&launch.container_dir);
    let log = Writer::open(log_dir.clone(), &launch.log);
    let rules = Rules {
        restart: launch.restart,
        stop_signal: launch.stop_signal,
        stop_timeout: launch.stop_timeout,
        health: launch.health.as_ref().map(HealthRules::from),
    };
    Ok(Driver {
        reactor,
        state: State::new(rules),
        timers: [None; Timer::ALL.len()],
        queue: VecDeque::new(),
        leaving: false,
        plan,
        terminal: launch.plan.process.terminal,
        stdin_plan: launch.stdin,
        auto_remove: launch.auto_remove,
        leashed: launch.leashed,
        health_plan: launch.health.take(),
        dir,
        lock: Some(lock),
        signals,
        listener: Some(listener),
        connections: Connections::new(),
        waiters: Vec::new(),
        network: None,
        users: None,
        machine: None,
        links: super::vm::Links::default(),
        held: Vec::new(),
        make_service,
        service: None,
        process: None,
        output: Output::default(),
        status: first_status(&launch, log.is_some().then(|| log::file(&log_dir, 0))),
        log,
        cage,
        sessions: Sessions::default(),
        probes: Probes::default(),
        failure: None,
        network_undo: Vec::new(),
        undo,
        network_endings: Vec::new(),
        story: launch.story.take(),
        files,
        launch: Some(launch),
    })
}

fn listen_at(dir: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The lock is ours: a socket found here is a dead supervisor's.
    let _ = rustix::fs::unlinkat(dir, SOCKET, rustix::fs::AtFlags::empty());
    bind(&socket, &short_address(dir.as_fd())?)?;
    // Nobody can connect before `listen`.
    chmodat(dir, SOCKET, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn first_status(launch: &Launch, log_path: Option<PathBuf>) -> Status {
    Status {
        supervisor_pid: getpid().as_raw_nonzero().get(),
        restart_policy: launch.restart,
        log_path,
        ..Status::created(&launch.id)
    }
}
