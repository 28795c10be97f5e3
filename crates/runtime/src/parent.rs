//! What the caller's side of `spawn` and `exec` have in common: what is handed in, the clone, and what comes
//! back.
//!
//! The calling process is made non-dumpable, for good: its children, until they execute their program, are
//! copies of it that a container can see, and a container must not reach the supervisor's executable
//! through their `/proc/<pid>/exe` (CVE-2019-5736) nor its memory. The flag is inherited by the copies, so
//! that there is no moment without it, and cleared in them by `execve`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_sys::clone::{Namespaces, Side, SoleThread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};
use rustix::thread::LinkNameSpaceType;

use crate::cgroup::Cgroup;
use crate::error::{SpawnError, Stage};
use crate::handshake::{Channel, Failure, Message};
use crate::plan::{IdMapping, NamespaceKind};

/// A process that has not started its program after so long is killed.
const SETUP_SECONDS_MAX: i64 = 120;

/// Open things that a plan cannot hold.
#[derive(Debug, Clone)]
pub struct Handles<'a> {
    /// Standard input, output and error. Ignored with a terminal.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Namespaces to enter in place of what the plan says of their kinds.
    pub join: Vec<(NamespaceKind, BorrowedFd<'a>)>,
    /// The container's cgroup, made beforehand with `cgroup::create`.
    pub cgroup: Option<&'a Cgroup>,
}

impl<'a> Handles<'a> {
    /// With standard streams only.
    #[must_use]
    pub fn new(stdin: BorrowedFd<'a>, stdout: BorrowedFd<'a>, stderr: BorrowedFd<'a>) -> Self {
        Self { stdio: [stdin, stdout, stderr], join: Vec::new(), cgroup: None }
    }

    /// Enters this network namespace.
    #[must_use]
    pub fn network(mut self, namespace: BorrowedFd<'a>) -> Self {
        self.join.push((NamespaceKind::Network, namespace));
        self
    }

    /// Puts the process there.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }
}

/// A process that runs its program.
#[derive(Debug)]
pub struct Spawned {
    /// As the caller sees it. The caller is its parent and must wait for it.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The master side, when a terminal was asked for.
    pub terminal: Option<OwnedFd>,
    /// What was asked for and the host does not have, in words.
    pub withheld: Vec<String>,
}

/// What only the caller can do for the new process.
pub(crate) struct Birth<'a> {
    pub(crate) namespaces: Namespaces,
    /// A pid namespace of somebody else to be born in.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    pub(crate) uid_mappings: &'a [IdMapping],
    pub(crate) gid_mappings: &'a [IdMapping],
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) cgroup: Option<&'a Cgroup>,
}

impl Birth<'_> {
    /// Clones; `child` goes on in the new process and returns only when it failed.
    pub(crate) fn give(
        &self,
        child: impl FnOnce(&Channel, SoleThread) -> Failure,
    ) -> Result<Spawned, SpawnError> {
        let proof = SoleThread::check().map_err(at(Stage::Clone, "single-threaded caller"))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(at(Stage::Clone, "PR_SET_DUMPABLE"))?;
        let (ours, theirs) = Channel::pair().map_err(at(Stage::Handshake, ""))?;
        match self.clone(proof)? {
            Side::Child(proof) => {
                drop(ours);
                let Ok(channel) = theirs.above_standard_streams() else { cata_sys::clone::exit(1) };
                let failure = match self.cgroup.map_or(Ok(()), Cgroup::enter_rest) {
                    Ok(()) => child(&channel, proof),
                    Err(error) => Failure::cgroup(&error),
                };
                // If the caller cannot be told, the exit alone must do.
                let _ = channel.send(&Message::Failed(failure), None);
                cata_sys::clone::exit(1)
            }
            Side::Parent(pid, pidfd) => {
                drop(theirs);
                let mut spawned = Spawned { pid, pidfd, terminal: None, withheld: Vec::new() };
                let started = self.provide(&mut spawned).and_then(|()| follow(&ours, &mut spawned));
                match started {
                    Ok(()) => Ok(spawned),
                    Err(error) => Err(bury(&spawned, error)),
                }
            }
        }
    }

    /// Clones inside the wanted pid namespace: only children can be put into one, so this process asks for
    /// it for its children and takes that back at once.
    fn clone(&self, proof: SoleThread) -> Result<Side, SpawnError> {
        let born_in = self.cgroup.and_then(Cgroup::unified_fd);
        let Some(namespace) = self.pid_namespace else {
            return cata_sys::clone::clone(proof, self.namespaces, born_in).map_err(at(Stage::Clone, ""));
        };
        let own = open_path("/proc/self/ns/pid").map_err(at(Stage::JoinNamespace, "/proc/self/ns/pid"))?;
        let pid = Some(LinkNameSpaceType::ProcessID);
        rustix::thread::move_into_link_name_space(namespace, pid).map_err(at(Stage::JoinNamespace, "pid"))?;
        let result = cata_sys::clone::clone(proof, self.namespaces, born_in);
        if !matches!(result, Ok(Side::Child(_))) {
            rustix::thread::move_into_link_name_space(own.as_fd(), pid)
                .map_err(at(Stage::JoinNamespace, "/proc/self/ns/pid"))?;
        }
        match result {
            // The kernel's word for a pid namespace whose first process has ended.
            Err(Errno::NOMEM) => Err(SpawnError::NotRunning),
            result => result.map_err(at(Stage::Clone, "")),
        }
    }

    fn provide(&self, spawned: &mut Spawned) -> Result<(), SpawnError> {
        let pid = spawned.pid.as_raw_nonzero();
        for (file, mappings) in [("uid_map", self.uid_mappings), ("gid_map", self.gid_mappings)] {
            if mappings.is_empty() {
                continue;
            }
            let path = format!("/proc/{pid}/{file}");
            let line = |m: &IdMapping| format!("{} {} {}\n", m.container, m.host, m.size);
            let text: String = mappings.iter().map(line).collect();
            write_file(&path, &text).map_err(at(Stage::IdMapping, &path))?;
        }
        if let Some(score) = self.oom_score_adj {
            let path = format!("/proc/{pid}/oom_score_adj");
            match write_file(&path, &score.to_string()) {
                Ok(()) => {}
                Err(Errno::ACCESS | Errno::PERM) => {
                    spawned.withheld.push(format!("oom_score_adj {score}: the host does not allow it"));
                }
                Err(errno) => return Err(at(Stage::Cgroup, &path)(errno)),
            }
        }
        Ok(())
    }
}

/// Lets the new process go and listens until its program runs.
fn follow(channel: &Channel, spawned: &mut Spawned) -> Result<(), SpawnError> {
    match channel.go() {
        // It has died already: what it said before is still to be read.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
        Err(errno) => return Err(at(Stage::Handshake, "")(errno)),
    }
    let mut ready = false;
    loop {
        let mut watched = [PollFd::new(channel, PollFlags::IN)];
        let limit = Timespec { tv_sec: SETUP_SECONDS_MAX, tv_nsec: 0 };
        let polled = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&limit)));
        if polled.map_err(at(Stage::Handshake, ""))? == 0 {
            return Err(at(Stage::Handshake, "")(Errno::TIMEDOUT));
        }
        match channel.receive() {
            Ok(Some((Message::Withheld(what), _))) => spawned.withheld.push(what),
            Ok(Some((Message::Terminal, fd))) => spawned.terminal = fd,
            Ok(Some((Message::Ready, _))) => ready = true,
            Ok(Some((Message::Failed(failure), _))) => return Err(failure.into()),
            Ok(None) | Err(Errno::CONNRESET) if ready => return Ok(()),
            Ok(None) | Err(Errno::CONNRESET) => return Err(SpawnError::Died(0)),
            Err(errno) => return Err(at(Stage::Handshake, "")(errno)),
        }
    }
}

/// Makes sure that nothing is left of a process that could not be started.
fn bury(spawned: &Spawned, error: SpawnError) -> SpawnError {
    // It may have ended by itself.
    let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, Signal::KILL);
    let waited =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(spawned.pid), WaitOptions::empty()));
    match (error, waited) {
        (SpawnError::Died(_), Ok(Some((_, status)))) => SpawnError::Died(status.as_raw()),
        (error, _) => error,
    }
}

/// For `map_err` on the caller's side.
pub(crate) fn at(stage: Stage, subject: impl ToString) -> impl FnOnce(Errno) -> SpawnError {
    move |errno| SpawnError::System {
        stage,
        subject: subject.to_string(),
        detail: None,
        source: io::Error::from(errno),
    }
}

pub(crate) fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write_file(path: &str, text: &str) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}
