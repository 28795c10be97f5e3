//! What a container is doing now, from files alone: nobody is asked, nobody can keep a reader waiting.

use std::io;
use std::net::IpAddr;

use cata_network::request::{Endpoint, PublishedPort};
use cata_sandbox::status::{self, Status, StatusKind};
use cata_spec::ContainerId;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Foreign, Kind, Result};
use crate::ledger;
use crate::record::Record;
use crate::request::RestartPolicy;

/// Written by the engine into `<state>/<id>/` once a start has made the network.
pub(crate) const NETWORK_FILE: &str = "network.json";
/// Written by the engine into `<root>/containers/<id>/` before a start: without `exit.json` beside it, the
/// container was running when the host went down.
pub(crate) const STARTED_FILE: &str = "started";

/// In `<root>/containers/<id>/`: it ran, and a boot may start it.
pub(crate) const RAN_FILE: &str = "ran";

/// Exit code of a container that was running when the host went down (Docker's).
const EXIT_HOST_DOWN: i32 = 255;
/// Exit code of a container whose supervisor was killed: its processes died with it, of SIGKILL.
const EXIT_SUPERVISOR_KILLED: i32 = 137;

/// PURE: whether a boot starts containers of this policy.
pub(crate) fn is_concerned(policy: RestartPolicy) -> bool {
    matches!(policy, RestartPolicy::Always | RestartPolicy::UnlessStopped)
}

/// A running container's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// One a network.
    pub endpoints: Vec<Endpoint>,
    /// Ports as really published.
    pub ports: Vec<PublishedPort>,
    /// Ports that are kept for it, while none of its networks leads out.
    #[serde(default)]
    pub held: Vec<PublishedPort>,
    /// A name service listens inside.
    #[serde(default)]
    pub names: bool,
}

impl NetworkFacts {
    /// Whether one of its endpoints is on `network`.
    pub(crate) fn is_on(&self, network: &cata_network::Network) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.network == network.name)
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let of = |endpoint: &Endpoint| {
            let v4 = endpoint.ipv4.map(|(address, _)| IpAddr::V4(address));
            v4.into_iter().chain(endpoint.ipv6.map(|(address, _)| IpAddr::V6(address)))
        };
        self.endpoints.iter().flat_map(of).collect()
    }
}

/// A record with its present.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What it is.
    pub record: Record,
    /// What it is doing.
    pub status: Status,
    /// Where it is reachable, while it runs.
    pub network: NetworkFacts,
}

/// Whether somebody answers for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A supervisor lives.
    Alive,
    /// Nothing runs.
    None,
    /// A supervisor was killed and left its things.
    Lost,
}

impl Engine {
    /// The present of one record.
    pub(crate) fn view(&self, record: Record) -> Result<View> {
        let (status, owner) = self.status(&record.id)?;
        let network =
            if owner == Owner::Alive { self.network_facts(&record.id) } else { NetworkFacts::default() };
        Ok(View { record, status, network })
    }

    /// A container's status, and who answers for it.
    pub(crate) fn status(&self, id: &ContainerId) -> Result<(Status, Owner)> {
        let live = self.paths.live(id);
        match status::read(&live) {
            Ok(status) if status.status == StatusKind::Exited => Ok((status, Owner::None)),
            Ok(status) if status::alive(&live) => Ok((status, Owner::Alive)),
            Ok(was) => {
                // Between the two looks the supervisor may have ended in good order.
                if let Ok(ended) = status::read_exit(&self.paths.container(id)) {
                    return Ok((ended, Owner::None));
                }
                let message = "its supervisor was killed".to_owned();
                Ok((ended(was, EXIT_SUPERVISOR_KILLED, message), Owner::Lost))
            }
            Err(error) if error.is_not_found() => {
                // A supervisor that makes itself ready has its lock, but nothing to say yet.
                let owner = if status::alive(&live) { Owner::Alive } else { Owner::None };
                Ok((self.resting(id), owner))
            }
            Err(error) => Err(Error::Sandbox(Foreign::new(Kind::Internal, None, &error))),
        }
    }

    /// The status of a container without live state.
    fn resting(&self, id: &ContainerId) -> Status {
        let dir = self.paths.container(id);
        // A torn document says no less than a missing one.
        if let Ok(status) = status::read_exit(&dir) {
            return status;
        }
        let created = Status::created(id);
        if dir.join(STARTED_FILE).exists() {
            return ended(created, EXIT_HOST_DOWN, "the host went down while it ran".to_owned());
        }
        created
    }

    pub(crate) fn network_facts(&self, id: &ContainerId) -> NetworkFacts {
        let path = self.paths.live(id).join(NETWORK_FILE);
        // Missing while a start is under way.
        ledger::read(&path).ok().flatten().unwrap_or_default()
    }

    /// What a container is doing now.
    ///
    /// # Errors
    /// A state that cannot be read.
    pub fn present(&self, record: &Record) -> Result<View> {
        self.view(record.clone())
    }

    /// Whether a container has a process, be it frozen.
    ///
    /// # Errors
    /// As [`Engine::present`].
    pub fn is_running(&self, record: &Record) -> Result<bool> {
        let (status, owner) = self.status(&record.id)?;
        Ok(owner == Owner::Alive && matches!(status.status, StatusKind::Running | StatusKind::Paused))
    }

    /// Every container with its present, newest first.
    ///
    /// # Errors
    /// The directory cannot be read. A container that vanishes meanwhile is left out, and so is one whose
    /// record or state is damaged, which [`Engine::damage`] then tells.
    pub fn views(&self) -> Result<Vec<View>> {
        let mut views = Vec::new();
        for record in self.readable_records()? {
            let id = record.id.clone();
            match self.view(record) {
                Ok(view) => views.push(view),
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(_) if !self.paths.container(&id).exists() => {}
                Err(error) => self.note_damage(&id, &error),
            }
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.record.created));
        Ok(views)
    }
}

fn ended(was: Status, exit_code: i32, error: String) -> Status {
    Status { status: StatusKind::Exited, pid: 0, supervisor_pid: 0, exit_code, error: Some(error), ..was }
}
