//! How a process is brought up beyond what its plan says, who accompanies it, and what comes of it: most of it an OCI
//! runtime's command line needs and an engine's supervisor does not.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::process::Pid;

/// How a process is brought up. The default is a supervisor's way: it starts at once and dies with its caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    /// A listening socket (`SOCK_SEQPACKET`): everything is prepared, then the process waits until somebody
    /// connects and lets it go ([`crate::start`]). It then lives without its caller.
    pub gate: Option<BorrowedFd<'a>>,
    /// Lives on when its caller ends.
    pub outlive: bool,
    /// How many of the caller's descriptors from 3 on the program gets.
    pub preserve: u32,
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

/// What a caller does while a process is being made. Texts of failures are for the user.
///
/// What is answered by `create_runtime` and `start_container` is the container's state, which the hooks that
/// the new process runs itself read on their standard input.
pub trait Attendant {
    /// Puts it into a cgroup that could not be made before there was a process.
    ///
    /// # Errors
    /// Why it cannot be there.
    fn place(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }

    /// Writes the id maps, or leaves that to the library (`false`).
    ///
    /// # Errors
    /// Why they could not be written.
    fn map_ids(&mut self, _pid: Pid) -> Result<bool, String> {
        Ok(false)
    }

    /// Everything is mounted and the root has not changed yet: the moment for `prestart` and `createRuntime`.
    ///
    /// # Errors
    /// Which hook failed, and how.
    fn create_runtime(&mut self, _pid: Pid) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    /// It waits at the gate. When this returns it lives without its caller.
    ///
    /// # Errors
    /// Why it cannot be remembered.
    fn waiting(&mut self, _spawned: &Spawned) -> Result<(), String> {
        Ok(())
    }

    /// It is about to run the `startContainer` hooks.
    ///
    /// # Errors
    /// Why it must not.
    fn start_container(&mut self, _pid: Pid) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    /// Its filter notifies here.
    ///
    /// # Errors
    /// Why nobody can be told.
    fn listener(&mut self, _pid: Pid, _listener: OwnedFd) -> Result<(), String> {
        Err("the filter notifies, and nobody listens".to_owned())
    }
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Attendant for Alone {}
