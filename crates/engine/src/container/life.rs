//! `stop`, `kill`, `restart`, `pause`, `unpause`, `rename`: requests to the supervisor, and a name's change.

use std::time::{Duration, Instant};

use cata_sandbox::client::ClientError;
use cata_sandbox::protocol::FailureKind;
use cata_spec::Name;

use crate::container::live::Owner;
use crate::container::names;
use crate::container::start::StartOptions;
use crate::engine::Engine;
use crate::error::{Error, Result, refused};
use crate::ledger;
use crate::plan::signal;
use crate::record::Record;
use crate::request::{CreateRequest, NamespaceMode, NetworkMode};
use crate::timing::Timing;

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was not running.
    Already,
    /// It ended with this exit code.
    Ended(i32),
    /// It ended only by SIGKILL: nobody in it handles the stop signal (its number is given).
    Ignored(i32),
}

/// How long a container may be on its way into, or out of, a state in which a request makes sense.
const PASSING: Duration = Duration::from_secs(30);

fn is_passing(error: &ClientError, since: Instant) -> bool {
    matches!(error, ClientError::Failed(failure) if failure.kind == FailureKind::Ending)
        && since.elapsed() < PASSING
}

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (-1: never).
    ///
    /// # Errors
    /// [`Error::NoContainer`]; a supervisor that does not answer.
    pub fn stop(&self, container: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<Stopped> {
        let record = self.find(container)?;
        let signal = signal.map(signal::parse).transpose()?;
        let default = record.config.stop_timeout.map(Duration::from_secs);
        let start = Instant::now();
        loop {
            let Some(mut client) = self.try_client(&record.id)? else { return Ok(Stopped::Already) };
            match client.stop(signal, timeout, default) {
                Ok((_, true)) => {
                    return Ok(Stopped::Ignored(signal.unwrap_or(record.config.stop_signal)));
                }
                Ok((code, false)) => return Ok(Stopped::Ended(code)),
                Err(ClientError::Gone | ClientError::NotRunning(_)) => return Ok(Stopped::Already),
                // Another command starts it this moment, or it has ended and its supervisor is about to leave.
                Err(error) if is_passing(&error, start) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(refused("stop", container, &error)),
            }
        }
    }

    /// Sends a signal (SIGKILL by default).
    ///
    /// # Errors
    /// [`Error::State`] when it does not run.
    pub fn kill(&self, container: &str, signal: Option<&str>) -> Result<()> {
        let number = signal.map_or(Ok(9), signal::parse)?;
        let record = self.find(container)?;
        let mut client = self.try_client(&record.id)?.ok_or_else(|| Error::State {
            what: format!("cannot kill container {container}: container is not running"),
            hint: None,
        })?;
        client.kill(number).map_err(|e| refused("kill", container, &e))
    }

    /// Stops and starts again; starts what does not run.
    ///
    /// # Errors
    /// What `stop` and `start` say.
    pub fn restart(&self, container: &str, timeout: Option<i64>) -> Result<()> {
        let record = self.find(container)?;
        let default = record.config.stop_timeout.map(Duration::from_secs);
        // Its supervisor knows namespaces as they were; whose they are may have been started again since.
        let anew = borrows(&record.request) && !record.request.auto_remove;
        if anew {
            let _ = self.stop(container, None, timeout)?;
        }
        let start = Instant::now();
        while !anew && let Some(mut client) = self.try_client(&record.id)? {
            match client.restart(timeout, default) {
                Ok(_) => return Ok(()),
                Err(ClientError::Gone | ClientError::NotRunning(_)) => break,
                // Another command starts or stops it this moment, which ends by itself.
                Err(error) if is_passing(&error, start) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(refused("restart", container, &error)),
            }
        }
        self.start(&record, StartOptions::default(), &mut Timing::default()).map(|_| ())
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run or is frozen already.
    pub fn pause(&self, container: &str) -> Result<()> {
        if self.host.rootless {
            let record = self.find(container)?;
            let (status, owner) = self.status(&record.id)?;
            if owner == Owner::Alive && status.pid != 0 {
                let _ = self.cgroup_of(&record, status.pid, "pause")?;
            }
        }
        let (record, mut client) = self.client(container)?;
        client.pause().map_err(|e| refused("pause", container, &e))?;
        self.tell_container(&record, "pause", &[]);
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// [`Error::State`] when it is not frozen.
    pub fn unpause(&self, container: &str) -> Result<()> {
        let (record, mut client) = self.client(container)?;
        client.unpause().map_err(|e| refused("unpause", container, &e))?;
        self.tell_container(&record, "unpause", &[]);
        Ok(())
    }

    /// Gives a container another name, also on its networks. The old name is free once the new one is taken
    /// and recorded.
    ///
    /// # Errors
    /// [`Error::NameInUse`].
    pub fn rename(&self, container: &str, to: &str) -> Result<()> {
        let name =
            Name::parse(to.strip_prefix('/').unwrap_or(to)).map_err(|e| Error::Invalid(e.to_string()))?;
        let found = self.find(container)?;
        let lock = self.lock(&found.id)?;
        let record = self.record(&found.id)?.ok_or_else(|| Error::NoContainer(container.to_owned()))?;
        if record.name == name {
            return Err(Error::Invalid(
                "Renaming a container with the same name as its current name".to_owned(),
            ));
        }
        names::take(&self.paths, &name, &record.id)?;
        let renamed = Record { name: name.clone(), ..record.clone() };
        if let Err(error) = ledger::write(&self.dir(&record.id).record(), &renamed, renamed.durability()) {
            let _ = names::release(&self.paths, &name, &record.id);
            return Err(error);
        }
        names::release_others(&self.paths, &name, &record.id)?;
        let endpoints = self.rename_endpoints(&record.id, &name);
        if let Some(mut client) = self.try_client(&record.id)? {
            // One that leaves this moment has said what there was to say.
            let _ = client.set_name(name.as_str());
        }
        self.tell_container(&renamed, "rename", &[("oldName", record.name.as_str())]);
        drop(lock);
        endpoints
    }
}

/// Whether a container is in namespaces of another one.
fn borrows(request: &CreateRequest) -> bool {
    let other = |mode: &NamespaceMode| matches!(mode, NamespaceMode::Container(_));
    matches!(request.network, NetworkMode::Container(_)) || other(&request.pid) || other(&request.ipc)
}
