//! Requests to a supervisor. Every call has a deadline; none needs a thread or a runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cata_runtime::cgroup::CgroupPlan;
use cata_runtime::plan::WindowSize;
use cata_sys::message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::launch::RestartPolicy;
use crate::protocol::{
    Answer, Call, Exec, FAREWELL, Failure, LONGEST, MOST_DESCRIPTORS, NetworkChange, Reply, Request, SOCKET,
    Streams, Until,
};

/// How long a supervisor may take for what it does at once.
pub const AT_ONCE: Duration = Duration::from_secs(10);
/// What a stop may take beyond its own timeout: killing, draining, undoing.
const BEYOND_STOP: Duration = Duration::from_secs(20);

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No supervisor listens: the container does not run.
    #[error("no supervisor at {path}", path = .0.display())]
    NotRunning(PathBuf),
    /// The connection failed.
    #[error("supervisor connection")]
    Io(#[source] io::Error),
    /// The supervisor left while it owed an answer.
    #[error("the supervisor left without an answer")]
    Gone,
    /// The deadline passed.
    #[error("no answer from the supervisor within {0:?}")]
    Timeout(Duration),
    /// What came is no answer.
    #[error("unexpected answer from the supervisor")]
    Protocol,
    /// The supervisor could not or would not.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Errno> for ClientError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// 128+n for signal n.
    pub exit_code: i32,
    /// Why it could not be started, if so.
    pub error: Option<String>,
    /// By the kernel's OOM killer.
    pub oom_killed: bool,
}

/// Streams of a container, as received.
#[derive(Debug, Default)]
pub struct Attached {
    /// Where to write input: a pipe, or the master side of the terminal.
    pub stdin: Option<OwnedFd>,
    /// Where to read output.
    pub stdout: Option<OwnedFd>,
    /// Where to read errors.
    pub stderr: Option<OwnedFd>,
    /// `stdin` is the terminal.
    pub terminal: bool,
}

impl Attached {
    pub(crate) fn new(streams: Streams, terminal: bool, fds: Vec<OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        let mut next = |wanted: bool| if wanted { fds.next() } else { None };
        Self {
            stdin: next(streams.stdin),
            stdout: next(streams.stdout),
            stderr: next(streams.stderr),
            terminal,
        }
    }
}

/// A process started by exec.
#[derive(Debug)]
pub struct ExecStarted {
    /// As the host sees it.
    pub pid: i32,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
    /// What the host could not give.
    pub withheld: Vec<String>,
    /// For [`Client::finish_exec`].
    pub number: u32,
}

/// A connection to one supervisor.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    next: u32,
    early: Vec<(Answer, Vec<OwnedFd>)>,
}

/// Connects to the socket of `<state>/<id>/`, however long that path is.
///
/// # Errors
/// [`ClientError::NotRunning`] when nobody listens.
pub fn connect_socket(state_dir: &Path) -> Result<OwnedFd, ClientError> {
    let absent = |error: Errno| match error {
        Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR => ClientError::NotRunning(state_dir.into()),
        error => error.into(),
    };
    // Through the directory's descriptor: socket addresses are at most 107 bytes long.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(state_dir, flags, Mode::empty()).map_err(absent)?;
    let address = short_address(dir.as_fd())?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &address).map_err(absent)?;
    Ok(socket)
}

pub(crate) fn short_address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    use std::os::fd::AsRawFd as _;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

impl Client {
    /// Connects to the supervisor of `<state>/<id>/`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody listens.
    pub fn connect(state_dir: &Path) -> Result<Self, ClientError> {
        connect_socket(state_dir).map(Self::over)
    }

    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self { socket, next: 1, early: Vec::new() }
    }

    /// Sends a request without waiting; its number is for [`Client::answer`].
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<u32, ClientError> {
        let number = self.next;
        self.next += 1;
        let bytes = serde_json::to_vec(&Call { number, request }).map_err(|e| ClientError::Io(e.into()))?;
        match message::send(self.socket.as_fd(), &bytes, fds) {
            // A supervisor that has left said goodbye before: `answer` finds it.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(number),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next answer to call `number`; `None` waits for ever (as `docker wait` does).
    ///
    /// # Errors
    /// [`ClientError::Timeout`], [`ClientError::Gone`], and [`ClientError::Failed`] with the reason.
    pub fn answer(
        &mut self,
        number: u32,
        within: Option<Duration>,
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let deadline = within.map(|within| (Instant::now() + within, within));
        loop {
            if let Some(at) = self.early.iter().position(|(answer, _)| answer.number == number) {
                let (answer, fds) = self.early.remove(at);
                return match answer.reply {
                    Reply::Failed(failure) => Err(ClientError::Failed(failure)),
                    reply => Ok((reply, fds)),
                };
            }
            if let Some((deadline, within)) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                let left = Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                };
                match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                    Ok(0) => return Err(ClientError::Timeout(within)),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match self.receive() {
                Ok(()) => {}
                Err(ClientError::Gone) => return self.take(FAREWELL).ok_or(ClientError::Gone),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what has arrived without waiting for more, for callers with a loop of their own: poll
    /// [`Client::as_fd`], call this, then [`Client::take`].
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the supervisor left.
    pub fn receive(&mut self) -> Result<(), ClientError> {
        let mut received = message::receive(self.socket.as_fd(), LONGEST, MOST_DESCRIPTORS);
        if received.as_ref().is_err_and(|error| *error == Errno::CONNRESET) {
            // It left without reading all we said; what it said before can still be read.
            received = message::receive(self.socket.as_fd(), LONGEST, MOST_DESCRIPTORS);
        }
        match received {
            Ok(Some((bytes, fds))) => {
                let answer = serde_json::from_slice(&bytes).map_err(|_| ClientError::Protocol)?;
                self.early.push((answer, fds));
                Ok(())
            }
            Ok(None) | Err(Errno::CONNRESET) => Err(ClientError::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// An answer to call `number` that has arrived.
    pub fn take(&mut self, number: u32) -> Option<(Reply, Vec<OwnedFd>)> {
        let at = self.early.iter().position(|(answer, _)| answer.number == number)?;
        let (answer, fds) = self.early.remove(at);
        Some((answer.reply, fds))
    }

    fn ask(
        &mut self,
        request: Request,
        within: Option<Duration>,
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let number = self.send(request, &[])?;
        self.answer(number, within)
    }

    fn done(&mut self, request: Request) -> Result<(), ClientError> {
        match self.ask(request, Some(AT_ONCE))?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the container; returns its exit code and whether it had ignored the stop signal. `timeout` in
    /// seconds (-1: for ever) and `signal` replace the container's own; `default` is the container's own
    /// timeout, from which the deadline of the call is reckoned.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop(
        &mut self,
        signal: Option<i32>,
        timeout: Option<i64>,
        default: Option<Duration>,
    ) -> Result<(i32, bool), ClientError> {
        let within = stop_deadline(timeout, default);
        match self.ask(Request::Stop { signal, timeout }, within)?.0 {
            Reply::Stopped { exit_code, ignored_signal } => Ok((exit_code, ignored_signal)),
            Reply::Exited { exit_code, .. } => Ok((exit_code, false)),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops and starts again; returns the new pid.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn restart(&mut self, timeout: Option<i64>, default: Option<Duration>) -> Result<i32, ClientError> {
        match self.ask(Request::Restart { timeout }, stop_deadline(timeout, default))?.0 {
            Reply::Running { pid, .. } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn kill(&mut self, signal: i32) -> Result<(), ClientError> {
        self.done(Request::Kill { signal })
    }

    /// Freezes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.done(Request::Pause)
    }

    /// A stream to the guest of a container in a virtual machine, on which frames are spoken.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect_to_guest(&mut self) -> Result<OwnedFd, ClientError> {
        let number = self.send(Request::Connect, &[])?;
        match self.answer(number, Some(AT_ONCE))? {
            (Reply::Connected, fds) => fds.into_iter().next().ok_or(ClientError::Protocol),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// The container's network namespace.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn network(&mut self) -> Result<OwnedFd, ClientError> {
        match self.ask(Request::Network, Some(AT_ONCE))? {
            (Reply::Network, fds) => fds.into_iter().next().ok_or(ClientError::Protocol),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Tells of a change of the container's networks; `fds` are sockets of services, then ports to be held.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_network(&mut self, change: NetworkChange, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let number = self.send(Request::SetNetwork(Box::new(change)), fds)?;
        match self.answer(number, Some(AT_ONCE))?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Thaws.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unpause(&mut self) -> Result<(), ClientError> {
        self.done(Request::Unpause)
    }

    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resize(&mut self, size: WindowSize) -> Result<(), ClientError> {
        self.done(Request::Resize { size })
    }

    /// Sets the size of an exec session's terminal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resize_exec(&mut self, id: &str, size: WindowSize) -> Result<(), ClientError> {
        self.done(Request::ExecResize { id: id.to_owned(), size })
    }

    /// Changes the name by which events speak of the container.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_name(&mut self, name: &str) -> Result<(), ClientError> {
        self.done(Request::SetName { name: name.to_owned() })
    }

    /// Changes the restart policy.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_restart(&mut self, policy: RestartPolicy) -> Result<(), ClientError> {
        self.done(Request::SetRestart { policy })
    }

    /// Changes the limits.
    ///
    /// # Errors
    /// [`ClientError`]; what the kernel says to a limit.
    pub fn set_limits(&mut self, cgroup: CgroupPlan) -> Result<(), ClientError> {
        self.done(Request::SetLimits { cgroup: Box::new(cgroup) })
    }

    /// Gives the guest of a virtual machine so much memory, as far as it was booted with so much.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_memory(&mut self, bytes: u64) -> Result<(), ClientError> {
        self.done(Request::SetMemory { bytes })
    }

    /// Waits until the container has ended, as far as asked.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Gone`] when the supervisor was killed.
    pub fn wait(&mut self, until: Until, within: Option<Duration>) -> Result<Ended, ClientError> {
        let number = self.send(Request::Wait { until }, &[])?;
        self.finish_wait(number, within)
    }

    /// The answer to a `Wait` sent before.
    ///
    /// # Errors
    /// As [`Client::wait`].
    pub fn finish_wait(&mut self, number: u32, within: Option<Duration>) -> Result<Ended, ClientError> {
        match self.answer(number, within)?.0 {
            Reply::Exited { exit_code, error, oom_killed } => Ok(Ended { exit_code, error, oom_killed }),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for streams of the running container.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach(&mut self, streams: Streams) -> Result<Attached, ClientError> {
        match self.ask(Request::Attach { streams }, Some(AT_ONCE))? {
            (Reply::Attached { streams, terminal }, fds) => Ok(Attached::new(streams, terminal, fds)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Starts one more process; `fds` are those that `exec.stdio` announces.
    ///
    /// # Errors
    /// [`ClientError::Failed`] with Docker's exit code when it could not be started.
    pub fn exec(&mut self, exec: Exec, fds: &[BorrowedFd<'_>]) -> Result<ExecStarted, ClientError> {
        let number = self.send(Request::Exec(Box::new(exec)), fds)?;
        match self.answer(number, Some(Duration::from_secs(60)))? {
            (Reply::ExecStarted { pid, terminal, withheld }, fds) => {
                let terminal = if terminal { fds.into_iter().next() } else { None };
                Ok(ExecStarted { pid, terminal, withheld, number })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Waits for the end of a process started with `wait`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Gone`] when the supervisor was killed.
    pub fn finish_exec(&mut self, number: u32, within: Option<Duration>) -> Result<i32, ClientError> {
        match self.answer(number, within)?.0 {
            Reply::ExecExited { exit_code } => Ok(exit_code),
            other => Err(unexpected(&other)),
        }
    }

    /// How an exec session is: its pid, and its exit code if it has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn inspect_exec(&mut self, id: &str) -> Result<(i32, Option<i32>), ClientError> {
        match self.ask(Request::ExecInspect { id: id.to_owned() }, Some(AT_ONCE))?.0 {
            Reply::ExecState { pid, exit_code } => Ok((pid, exit_code)),
            other => Err(unexpected(&other)),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An answer that is none: the supervisor's goodbye means that nobody does it any more.
fn unexpected(reply: &Reply) -> ClientError {
    match reply {
        Reply::Exited { .. } => ClientError::Gone,
        _ => ClientError::Protocol,
    }
}

/// When a stop must have been answered; `None` only for a stop that may take for ever.
fn stop_deadline(timeout: Option<i64>, default: Option<Duration>) -> Option<Duration> {
    let polite = match timeout {
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
        None => default,
    };
    polite.map(|polite| polite.saturating_add(BEYOND_STOP))
}
