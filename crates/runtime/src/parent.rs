//! What the caller's side of `spawn` and `exec` have in common: what is handed in, the clone, and what comes
//! back.
//!
//! The calling process is made non-dumpable, for good: its children, until they execute their program, are
//! copies of it that a container can see, and a container must not reach the supervisor's executable
//! through their `/proc/<pid>/exe` (CVE-2019-5736) nor its memory. The flag is inherited by the copies, so
//! that there is no moment without it, and cleared in them by `execve`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cata_sys::clone::{Namespaces, Side, SoleThread};
use cata_sys::flag::Flag;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdGetfdFlags, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::cgroup::Cgroup;
use crate::error::{SpawnError, Stage, at};
use crate::handshake::{Channel, Failure, Message, Moment};
use crate::manner::{Attendant, Spawned};
use crate::namespace::{link_type, may_return, open_path, write_file, write_maps};
use crate::plan::{IdMapping, NamespaceKind, NetDevice, TimeOffset};
use crate::{device, hook};

/// A process that has not started its program after so long is killed.
const SETUP_SECONDS_MAX: i64 = 300;

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

    /// Enters this user namespace, which is the plan's, made before.
    #[must_use]
    pub fn user(mut self, namespace: BorrowedFd<'a>) -> Self {
        self.join.push((NamespaceKind::User, namespace));
        self
    }

    /// Puts the process there.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }
}

/// What only the caller can do for the new process.
pub(crate) struct Birth<'a> {
    pub(crate) namespaces: Namespaces,
    /// A pid namespace of somebody else to be born in.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    /// Somebody else's user namespace, to which the new namespaces are to belong.
    pub(crate) user: Option<BorrowedFd<'a>>,
    /// Namespaces of somebody else to be born in, since a new user namespace has no right to them.
    pub(crate) enter: Vec<(NamespaceKind, BorrowedFd<'a>)>,
    /// A new time namespace, and how far its clocks are off.
    pub(crate) time: Option<&'a [TimeOffset]>,
    /// Devices to move, and the network namespace that is joined; without one it is a new one.
    pub(crate) net_devices: (&'a [NetDevice], Option<BorrowedFd<'a>>),
    pub(crate) uid_mappings: &'a [IdMapping],
    pub(crate) gid_mappings: &'a [IdMapping],
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) cgroup: Option<&'a Cgroup>,
}

impl Birth<'_> {
    /// Clones; `child` goes on in the new process and returns only when it failed.
    pub(crate) fn give(
        &self,
        attendant: &mut dyn Attendant,
        child: impl FnOnce(&mut Channel, SoleThread) -> Failure,
    ) -> Result<Spawned, SpawnError> {
        let proof = SoleThread::check().map_err(at(Stage::Clone, "single-threaded caller"))?;
        // Whose maps another program writes must look like his caller's until that is done ([`hide`]).
        let mapped_by_others = !self.uid_mappings.is_empty() && !rustix::process::geteuid().is_root();
        if !mapped_by_others {
            hide().map_err(at(Stage::Clone, "PR_SET_DUMPABLE"))?;
        }
        let (ours, theirs) = Channel::pair().map_err(at(Stage::Handshake, ""))?;
        match self.clone(proof)? {
            Side::Child(proof) => {
                drop(ours);
                let Ok(mut channel) = theirs.above_standard_streams() else { cata_sys::clone::exit(1) };
                let failure = match self.cgroup.map_or(Ok(()), Cgroup::enter_rest) {
                    Ok(()) => child(&mut channel, proof),
                    Err(error) => Failure::cgroup(&error),
                };
                // If the caller cannot be told, the exit alone must do.
                let _ = channel.send(&Message::Failed(failure), None);
                cata_sys::clone::exit(1)
            }
            Side::Parent(pid, pidfd) => {
                drop(theirs);
                hide().map_err(at(Stage::Clone, "PR_SET_DUMPABLE"))?;
                let mut spawned = Spawned { pid, pidfd, terminal: None, withheld: Vec::new() };
                let started = self.provide(&mut spawned, attendant);
                let started = started.and_then(|()| follow(&ours, &mut spawned, attendant));
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
        let Some(offsets) = self.time else { return self.clone_entered(proof) };
        // A time namespace is for children too, and its clocks can be set only while nobody is in it.
        let own = open_path("/proc/self/ns/time").map_err(at(Stage::MakeNamespace, "time"))?;
        cata_sys::namespace::unshare(UnshareFlags::NEWTIME).map_err(at(Stage::MakeNamespace, "time"))?;
        let line = |o: &TimeOffset| format!("{} {} {}\n", o.clock, o.seconds, o.nanoseconds);
        let text: String = offsets.iter().map(line).collect();
        let path = "/proc/self/timens_offsets";
        let set = if text.is_empty() { Ok(()) } else { write_file(path, &text) };
        let result = set.map_err(at(Stage::MakeNamespace, path)).and_then(|()| self.clone_entered(proof));
        if !matches!(result, Ok(Side::Child(_))) {
            rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Time))
                .map_err(at(Stage::JoinNamespace, "/proc/self/ns/time"))?;
        }
        result
    }

    fn clone_entered(&self, proof: SoleThread) -> Result<Side, SpawnError> {
        let mut own = Vec::with_capacity(self.enter.len());
        for (kind, namespace) in &self.enter {
            let path = format!("/proc/self/ns/{}", kind.file_name());
            own.push((*kind, open_path(&path).map_err(at(Stage::JoinNamespace, &path))?));
            let link = Some(link_type(*kind));
            rustix::thread::move_into_link_name_space(*namespace, link)
                .map_err(at(Stage::JoinNamespace, kind.file_name()))?;
        }
        let result = self.clone_in_pids(proof);
        if !matches!(result, Ok(Side::Child(_))) {
            for (kind, namespace) in &own {
                let link = Some(link_type(*kind));
                rustix::thread::move_into_link_name_space(namespace.as_fd(), link)
                    .map_err(at(Stage::JoinNamespace, kind.file_name()))?;
            }
        }
        result
    }

    /// Namespaces belong to the user namespace of who makes them, and nobody comes back from one, nor from a pid
    /// namespace without rights to his own: somebody else goes there, makes the process as a child of ours, and
    /// ends.
    fn clone_by_another(&self, proof: SoleThread) -> Result<Side, SpawnError> {
        let failed = |errno| at(Stage::Clone, "in namespaces of the container")(errno);
        let (ours, theirs) = cata_sys::message::pair().map_err(failed)?;
        let another = cata_sys::clone::clone(proof, Namespaces::default(), None).map_err(failed)?;
        let pid = match another {
            Side::Child(proof) => {
                let enter = |namespace: Option<BorrowedFd<'_>>, kind| {
                    namespace.map_or(Ok(()), |fd| rustix::thread::move_into_link_name_space(fd, Some(kind)))
                };
                let entered = enter(self.user, LinkNameSpaceType::User)
                    .and_then(|()| enter(self.pid_namespace, LinkNameSpaceType::ProcessID));
                let sibling = Namespaces(self.namespaces.0 | cata_sys::clone::PARENT);
                let born_in = self.cgroup.and_then(Cgroup::unified_fd);
                match entered.and_then(|()| cata_sys::clone::clone(proof, sibling, born_in)) {
                    Ok(Side::Child(proof)) => return Ok(Side::Child(proof)),
                    Ok(Side::Parent(pid, pidfd)) => {
                        let number = pid.as_raw_nonzero().get().to_ne_bytes();
                        // Without an answer the caller knows that something failed.
                        let _ = cata_sys::message::send(theirs.as_fd(), &number, &[pidfd.as_fd()]);
                    }
                    Err(errno) => {
                        let number = errno.raw_os_error().to_ne_bytes();
                        let _ = cata_sys::message::send(theirs.as_fd(), &number, &[]);
                    }
                }
                cata_sys::clone::exit(0)
            }
            Side::Parent(pid, _) => pid,
        };
        drop(theirs);
        let answer = cata_sys::message::receive(ours.as_fd(), 4, 1);
        let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
        waited.map_err(failed)?;
        let (bytes, mut descriptors) = answer.map_err(failed)?.ok_or_else(|| failed(Errno::PIPE))?;
        let number = <[u8; 4]>::try_from(bytes.as_slice()).map(i32::from_ne_bytes).unwrap_or_default();
        match (descriptors.pop(), Pid::from_raw(number)) {
            (Some(pidfd), Some(pid)) => Ok(Side::Parent(pid, pidfd)),
            // The kernel's word for a pid namespace whose first process has ended.
            _ if self.pid_namespace.is_some() && Errno::from_raw_os_error(number) == Errno::NOMEM => {
                Err(SpawnError::NotRunning)
            }
            _ => Err(failed(Errno::from_raw_os_error(number))),
        }
    }

    fn clone_in_pids(&self, proof: SoleThread) -> Result<Side, SpawnError> {
        let born_in = self.cgroup.and_then(Cgroup::unified_fd);
        if self.user.is_some() {
            return self.clone_by_another(proof);
        }
        let Some(namespace) = self.pid_namespace else {
            return cata_sys::clone::clone(proof, self.namespaces, born_in).map_err(at(Stage::Clone, ""));
        };
        let own = open_path("/proc/self/ns/pid").map_err(at(Stage::JoinNamespace, "/proc/self/ns/pid"))?;
        let pid = Some(LinkNameSpaceType::ProcessID);
        if !may_return(own.as_fd()) {
            return self.clone_by_another(proof);
        }
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

    fn provide(&self, spawned: &mut Spawned, attendant: &mut dyn Attendant) -> Result<(), SpawnError> {
        let pid = spawned.pid.as_raw_nonzero();
        attendant.place(spawned.pid).map_err(SpawnError::NotHere)?;
        let mapped = !self.uid_mappings.is_empty() || !self.gid_mappings.is_empty();
        if mapped && !attendant.map_ids(spawned.pid).map_err(SpawnError::NotHere)? {
            write_maps(pid.get(), self.uid_mappings, self.gid_mappings)?;
        }
        match self.net_devices {
            ([], _) => {}
            (devices, Some(namespace)) => device::give(devices, namespace)?,
            (devices, None) => {
                let path = format!("/proc/{pid}/ns/net");
                let namespace = open_path(&path).map_err(at(Stage::NetDevice, &path))?;
                device::give(devices, namespace.as_fd())?;
            }
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

/// Neither this process nor, until they execute their program, its children can be looked into.
fn hide() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Lets a process go that waits at its gate, by a connection to it, and returns once its program runs.
///
/// # Errors
/// What the process said, or that it is gone.
pub fn start(
    gate: OwnedFd,
    process: BorrowedFd<'_>,
    pid: Pid,
    attendant: &mut dyn Attendant,
) -> Result<Vec<String>, SpawnError> {
    let pidfd = process.try_clone_to_owned().map_err(|source| SpawnError::System {
        stage: Stage::Gate,
        subject: pid.to_string(),
        detail: None,
        source,
    })?;
    let mut spawned = Spawned { pid, pidfd, terminal: None, withheld: Vec::new() };
    follow(&Channel::of(gate), &mut spawned, attendant)?;
    Ok(spawned.withheld)
}

/// Lets the new process go and listens until its program runs, or until it waits at its gate.
fn follow(channel: &Channel, spawned: &mut Spawned, attendant: &mut dyn Attendant) -> Result<(), SpawnError> {
    gone(channel.go())?;
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
            Ok(Some((Message::Hooks(moment), _))) => {
                let state = match moment {
                    Moment::CreateRuntime => attendant.create_runtime(spawned.pid),
                    Moment::StartContainer => attendant.start_container(spawned.pid),
                };
                let state = hook::sealed(&state.map_err(SpawnError::Hook)?).map_err(at(Stage::Hook, ""))?;
                gone(channel.answer(state.as_fd()))?;
            }
            Ok(Some((Message::Waiting, _))) => {
                attendant.waiting(spawned).map_err(SpawnError::NotHere)?;
                gone(channel.go())?;
            }
            Ok(Some((Message::Free, _))) => return Ok(()),
            Ok(Some((Message::Listener(number), Some(flag)))) => {
                let Some(listener) = fetch(channel, spawned, number)? else { continue };
                attendant.listener(spawned.pid, listener).map_err(SpawnError::NotHere)?;
                let flag = Flag::open(flag.as_fd()).map_err(at(Stage::Seccomp, "listener"))?;
                flag.raise();
            }
            Ok(Some((Message::Listener(_), None))) => {
                return Err(at(Stage::Seccomp, "listener")(Errno::BADMSG));
            }
            Ok(Some((Message::Failed(failure), _))) => return Err(failure.into()),
            Ok(Some((Message::Tree, _))) => return Err(at(Stage::Handshake, "")(Errno::BADMSG)),
            Ok(None) | Err(Errno::CONNRESET) if ready => return Ok(()),
            Ok(None) | Err(Errno::CONNRESET) => return Err(SpawnError::Died(0)),
            Err(errno) => return Err(at(Stage::Handshake, "")(errno)),
        }
    }
}

/// It may have died already: what it said before is still to be read.
fn gone(sent: Result<(), Errno>) -> Result<(), SpawnError> {
    match sent {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(at(Stage::Handshake, "")(errno)),
    }
}

/// Takes the listener of a filter out of the process, which may not be able to send it: its filter is loaded.
/// `None`: the process says that it failed.
fn fetch(channel: &Channel, spawned: &Spawned, number: i32) -> Result<Option<OwnedFd>, SpawnError> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(SETUP_SECONDS_MAX.unsigned_abs());
    loop {
        match rustix::process::pidfd_getfd(&spawned.pidfd, number, PidfdGetfdFlags::empty()) {
            Ok(listener) => return Ok(Some(listener)),
            Err(Errno::BADF) => {}
            Err(errno) => return Err(at(Stage::Seccomp, "listener")(errno)),
        }
        // The filter is not loaded yet: nothing tells when it is, but a message that it could not be.
        let mut watched = [PollFd::new(channel, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: 500_000 };
        let polled = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&pause)));
        if polled.map_err(at(Stage::Handshake, ""))? > 0 {
            // It cannot be on its way yet: it says why it could not be loaded.
            return Ok(None);
        }
        if std::time::Instant::now() > end {
            return Err(at(Stage::Seccomp, "listener")(Errno::TIMEDOUT));
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
