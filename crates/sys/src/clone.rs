//! A new process: clone3 as fork, for single-threaded callers.

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// The `libc` crate's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Namespaces to make, as `CLONE_NEW*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces(pub u64);

/// `CLONE_PARENT`, beside the kinds of [`Namespaces`]: the new process is the caller's sibling.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

/// Which side of the clone this is.
#[derive(Debug)]
pub enum Side {
    /// The caller: the child's pid as seen from here, and a descriptor of it.
    Parent(Pid, OwnedFd),
    /// The new process. It must end with `execve` or [`exit`].
    Child(SoleThread),
}

/// Proof that this process has one thread: a copy of it holds no lock that nobody releases.
#[derive(Debug)]
pub struct SoleThread(());

impl SoleThread {
    /// Counts the threads.
    ///
    /// # Errors
    /// `EDEADLK` when there are more, `ENOENT` without `/proc`.
    pub fn check() -> Result<Self, Errno> {
        // The directory has a link for itself, one for its parent and one a thread.
        let threads = rustix::fs::stat("/proc/self/task")?.st_nlink.saturating_sub(2);
        if threads == 1 { Ok(Self(())) } else { Err(Errno::DEADLK) }
    }
}

/// Makes a new process with its own copy of everything, in new namespaces, and, on cgroup v2, in `cgroup`.
///
/// # Errors
/// Those of `clone3`.
pub fn clone(
    _proof: SoleThread,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    // A sibling ends as its maker does.
    arguments.exit_signal = if namespaces.0 & PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM and with no stack this is fork: the child goes on with a copy of this memory.
    // No other thread exists (`SoleThread`), so no lock is held in the copy. `pidfd` outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match result {
        0 => Ok(Side::Child(SoleThread(()))),
        1.. => {
            let pid = i32::try_from(result).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            // SAFETY: the kernel stored a new descriptor there, and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent(pid, pidfd))
        }
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// A plain copy of this process, by the old call: filters that forbid `clone3` allow it. `None` in the copy.
///
/// # Errors
/// `EAGAIN` at a limit of processes.
pub fn fork(_proof: SoleThread) -> Result<Option<Pid>, Errno> {
    // SAFETY: no other thread exists (`SoleThread`), so no lock is held in the copy.
    let result = unsafe { libc::fork() };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN));
    }
    Ok(Pid::from_raw(result))
}

/// Ends this process at once: no destructors, no flushing of what the parent buffered.
pub fn exit(code: i32) -> ! {
    // SAFETY: it does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// A process in new namespaces that does nothing but keep them, until this is dropped or its maker ends.
#[derive(Debug)]
pub struct Keeper {
    pid: Pid,
    process: OwnedFd,
    /// Closed by the kernel when the maker ends: then there is nothing left to wait for.
    _alive: OwnedFd,
}

impl Keeper {
    /// Makes one; the caller may have any number of threads.
    ///
    /// # Errors
    /// Those of `clone3` and `pipe2`.
    pub fn new(namespaces: Namespaces) -> Result<Self, Errno> {
        let (alive, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (alive_fd, held_fd) = (alive.as_raw_fd(), held.as_raw_fd());
        let mut pidfd: RawFd = -1;
        // SAFETY: all fields are integers, for which zero is valid.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
        arguments.pidfd = (&raw mut pidfd).addr() as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        // SAFETY: this is fork, perhaps of one thread among several: up to its end the child makes system calls
        // only, which need no lock and no memory of its own.
        let result =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        if result == 0 {
            let mut byte = 0_u8;
            // SAFETY: it is open in this copy, whose own it is.
            unsafe { libc::close(held_fd) };
            // SAFETY: `byte` is one byte. Interrupted, it is called again.
            while unsafe { libc::read(alive_fd, (&raw mut byte).cast(), 1) } < 0 {}
            exit(0)
        }
        let Some(pid) = i32::try_from(result).ok().and_then(Pid::from_raw).filter(|_| result > 0) else {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        };
        // SAFETY: the kernel stored a new descriptor there, and nobody else knows it.
        let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid, process, _alive: held })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It only sleeps. Should it not be there any more, there is nothing to end or to wait for.
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
        let whose = rustix::process::WaitId::PidFd(self.process.as_fd());
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(whose.clone(), rustix::process::WaitIdOptions::EXITED)
        });
    }
}
