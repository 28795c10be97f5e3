//! The engine's side of a start: a supervisor is spawned with its plan in a sealed memfd, prepares itself
//! while the engine makes the network, and gets the word to go.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cata_guest::report::BootTimes;
use cata_sys::{detach, message};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::client::{Attached, Client, ClientError};
use crate::launch::{Go, Launch};
use crate::protocol::{Failure, FailureKind, Reply, Request, Streams};
use crate::undo;

/// How long the making of a process may take: it waits for slow disks, not for the program.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a virtual machine may take to come up: it has a deadline of its own before this one.
const PATIENCE_WITH_MACHINES: Duration = Duration::from_secs(900);

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The plan could not be written down.
    #[error("cannot hand the plan over")]
    Plan(#[source] io::Error),
    /// The supervisor could not be started.
    #[error("cannot start the supervisor {path}", path = .0.display())]
    Spawn(PathBuf, #[source] io::Error),
    /// The supervisor could not start the container.
    #[error("{0}")]
    Failed(Failure),
    /// The supervisor did not answer.
    #[error("no answer from the supervisor")]
    Supervisor(#[source] ClientError),
}

impl LaunchError {
    /// Docker's exit code: 125, 126 or 127.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Failed(failure) => failure.exit_code,
            _ => 125,
        }
    }

    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed(failure) => failure.hint.clone(),
            Self::Spawn(..) => Some("is cata-supervisor installed beside cata?".to_owned()),
            _ => None,
        }
    }
}

/// A supervisor that makes itself ready. Dropped without [`Pending::go`], it undoes what it did and leaves.
#[derive(Debug)]
pub struct Pending {
    client: Client,
    supervisor: i32,
    terminal: bool,
    patience: Duration,
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    /// Its first process as the host sees it.
    pub pid: i32,
    /// What the host could not give.
    pub withheld: Vec<String>,
    /// The streams asked for, from the first byte on.
    pub attached: Attached,
    /// What the boot of its virtual machine took, if it has one.
    pub boot: Option<BootTimes>,
    /// A connection that needs no further connect.
    pub client: Client,
}

/// Spawns a supervisor for this container. `launch.state_dir` must exist.
///
/// # Errors
/// [`LaunchError::Plan`] and [`LaunchError::Spawn`].
pub fn launch(launch: &Launch, supervisor: &Path) -> Result<Pending, LaunchError> {
    let plan = seal(launch).map_err(LaunchError::Plan)?;
    let (ours, theirs) = message::pair().map_err(|e| LaunchError::Plan(e.into()))?;
    let given = [plan.as_fd(), theirs.as_fd()];
    let pid = detach::spawn(supervisor, &[launch.id.as_str()], &given)
        .map_err(|e| LaunchError::Spawn(supervisor.into(), e))?;
    Ok(Pending {
        client: Client::over(ours),
        supervisor: pid,
        terminal: launch.plan.process.terminal,
        patience: if launch.vm.is_some() { PATIENCE_WITH_MACHINES } else { PATIENCE },
    })
}

fn seal(launch: &Launch) -> io::Result<OwnedFd> {
    let plan = memfd_create("cata-launch", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let text = serde_json::to_vec(launch)?;
    let mut file = File::from(plan);
    file.write_all(&text)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

impl Pending {
    /// The supervisor's pid.
    #[must_use]
    pub fn supervisor(&self) -> i32 {
        self.supervisor
    }

    /// Why the supervisor could not begin, if that is what made something else beside it fail: it may have
    /// removed an `--rm` container already.
    #[must_use]
    pub fn complaint(mut self) -> Option<LaunchError> {
        match self.client.answer(1, Some(Duration::from_millis(50))) {
            Err(ClientError::Failed(failure)) => Some(LaunchError::Failed(failure)),
            _ => None,
        }
    }

    /// Hands over what was made meanwhile (`fds` as [`Go`] describes) and waits for the process to run.
    ///
    /// # Errors
    /// [`LaunchError::Failed`] with Docker's exit code. Whenever the container does not run, everything in
    /// `go.undo` is undone by then; only after a timeout nobody can tell, and [`crate::recover::recover`] may.
    pub fn go(mut self, go: Go, fds: Vec<OwnedFd>, attach: Option<Streams>) -> Result<Running, LaunchError> {
        let passed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        let undo = go.undo.clone();
        let answered = self
            .client
            .send(Request::Go { go: Box::new(go), attach }, &passed)
            .and_then(|number| self.client.answer(number, Some(self.patience)));
        let answered = match answered {
            // Its goodbye: it did not wait for us any longer, and never heard of what was made meanwhile.
            Ok((Reply::Exited { error, exit_code, .. }, _)) => {
                let message = error.unwrap_or_else(|| "the supervisor gave up".to_owned());
                let failure = Failure::new(FailureKind::System, message);
                Err(ClientError::Failed(Failure { exit_code, ..failure }))
            }
            answered => answered,
        };
        match answered {
            Ok((Reply::Running { pid, withheld, streams, boot }, received)) => {
                let attached = Attached::new(streams, self.terminal, received);
                Ok(Running { pid, withheld, attached, boot, client: self.client })
            }
            Ok(_) => Err(LaunchError::Supervisor(ClientError::Protocol)),
            Err(error) => {
                if matches!(error, ClientError::Failed(_) | ClientError::Gone) {
                    // A supervisor that could not even begin never heard of it; twice is as good as once.
                    drop(fds);
                    let _ = undo::perform(&undo);
                }
                Err(match error {
                    ClientError::Failed(failure) => LaunchError::Failed(failure),
                    error => LaunchError::Supervisor(error),
                })
            }
        }
    }
}
