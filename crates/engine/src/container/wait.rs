//! `wait`: until a container has ended. The only verb that may wait for ever.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use cata_sandbox::client::{Client, ClientError};
use cata_sandbox::protocol::{FailureKind, Until};
use cata_spec::ContainerId;

use crate::container::live::Owner;
use crate::engine::Engine;
use crate::error::{Error, Result, client_error};
use crate::record::Record;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// 128+n for signal n.
    pub code: i32,
    /// Why it could not be started again, if so.
    pub error: Option<String>,
    /// By the kernel's OOM killer.
    pub oom_killed: bool,
}

impl Exit {
    /// With its supervisor.
    fn killed() -> Self {
        Self { code: 137, error: Some("its supervisor was killed".to_owned()), oom_killed: false }
    }
}

/// A question already asked of a supervisor: its answer is the container's end.
#[derive(Debug)]
pub struct Waiter {
    client: Client,
    number: Option<u32>,
}

impl Waiter {
    /// Over a connection to the container's supervisor.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, number: None }
    }

    /// Asks now, so that an end between now and [`Waiter::finish`] is not missed.
    ///
    /// # Errors
    /// The connection failed.
    pub fn ask(&mut self, until: Until) -> Result<()> {
        if self.number.is_none() {
            let request = cata_sandbox::protocol::Request::Wait { until };
            self.number = Some(self.client.send(request, &[]).map_err(|e| client_error("wait", &e))?);
        }
        Ok(())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The supervisor was killed: the container died with it (137).
    pub fn finish(mut self) -> Result<Exit> {
        self.ask(Until::NotRunning)?;
        let number = self.number.unwrap_or_default();
        match self.client.finish_wait(number, None) {
            Ok(ended) => Ok(Exit { code: ended.exit_code, error: ended.error, oom_killed: ended.oom_killed }),
            Err(ClientError::Gone) => Ok(Exit::killed()),
            Err(error) => Err(client_error("wait", &error)),
        }
    }
}

impl AsFd for Waiter {
    /// Readable when the answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

impl Engine {
    /// Waits for a container to end, however far `until` says; one that does not run answers at once.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn wait(&self, container: &str, until: Until) -> Result<Exit> {
        let record = self.find(container)?;
        match self.try_client(&record.id)? {
            Some(mut client) => {
                match client.wait(until, None) {
                    Ok(ended) => {
                        Ok(Exit { code: ended.exit_code, error: ended.error, oom_killed: ended.oom_killed })
                    }
                    // It left before it heard us: what it wrote last says how its container ended.
                    Err(ClientError::Gone) if self.paths.container(&record.id).exists() => {
                        self.last_exit(&record.id)
                    }
                    Err(ClientError::Gone) => Ok(Exit::killed()),
                    Err(error) => Err(client_error("wait", &error)),
                }
            }
            None => self.last_exit(&record.id),
        }
    }

    /// How a container ended, from its files.
    fn last_exit(&self, id: &ContainerId) -> Result<Exit> {
        let (status, _) = self.status(id)?;
        Ok(Exit { code: status.exit_code, error: status.error, oom_killed: status.oom_killed })
    }

    /// Waits, a moment at most, until a leashed container's supervisor has taken it away.
    pub(crate) fn wait_gone(&self, id: &ContainerId) {
        let start = std::time::Instant::now();
        while self.paths.container(id).exists() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILLs a running container and waits until its supervisor has gone, at most `within`. Whatever others
    /// ask of it meanwhile: it is asked again as long as it lives.
    pub(crate) fn kill_and_wait(&self, id: &ContainerId, within: Duration) -> Result<()> {
        let live = self.paths.live(id);
        let start = std::time::Instant::now();
        while cata_sandbox::status::alive(&live) {
            let left = within.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::Timeout(format!("the supervisor of container {}", id.short())));
            }
            // One that makes itself ready does not listen yet, one that cleans up not any more.
            if let Some(mut client) = self.try_client(id)? {
                let killed = client.stop(Some(rustix::process::Signal::KILL.as_raw()), Some(0), Some(left));
                let left = within.saturating_sub(start.elapsed());
                match killed.and_then(|_| client.wait(Until::Removed, Some(left)).map(|_| ())) {
                    Ok(()) | Err(ClientError::Gone | ClientError::NotRunning(_)) => {}
                    // It is being stopped or started by somebody else this moment.
                    Err(ClientError::Failed(failure))
                        if matches!(failure.kind, FailureKind::State | FailureKind::Ending) => {}
                    Err(error) => return Err(client_error("kill", &error)),
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// A connection to the container's supervisor; `None` when none lives.
    pub(crate) fn try_client(&self, id: &ContainerId) -> Result<Option<Client>> {
        match Client::connect(&self.paths.live(id)) {
            Ok(client) => Ok(Some(client)),
            Err(ClientError::NotRunning(_)) => Ok(None),
            Err(error) => Err(client_error("connect", &error)),
        }
    }

    /// A connection to the supervisor of a container that must be running.
    pub(crate) fn client(&self, container: &str) -> Result<(Record, Client)> {
        let record = self.find(container)?;
        let (_, owner) = self.status(&record.id)?;
        let client = if owner == Owner::Alive { self.try_client(&record.id)? } else { None };
        match client {
            Some(client) => Ok((record, client)),
            None => Err(not_running(&record)),
        }
    }
}

/// What cannot be done with a container that does not run.
pub(crate) fn not_running(record: &Record) -> Error {
    Error::State {
        what: format!("container {} is not running", record.id),
        hint: Some(format!("start it with `cata start {}`", record.name)),
    }
}
