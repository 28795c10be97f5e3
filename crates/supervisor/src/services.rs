//! What a supervisor serves for others: names and published ports, as the sandbox's one service.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use cata_network::dns::Resolver;
use cata_network::forward::Forwarder;
use cata_network::request::ServicePlan;
use cata_sandbox::service::Service;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Makes what is planned; the sockets are those of the name service first.
pub(crate) fn make(plan: serde_json::Value, sockets: Vec<OwnedFd>) -> Result<Box<dyn Service>, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let plan: ServicePlan = serde_json::from_value(plan).map_err(|e| failed("services", &e))?;
    let mut sockets = sockets;
    let forwarded = sockets.split_off(sockets.len().saturating_sub(plan.forwards.len()));
    let names = plan.names.map(|names| Resolver::new(names, sockets)).transpose();
    let names = names.map_err(|e| failed("name service", &e))?;
    let ports = (!plan.forwards.is_empty()).then(|| Forwarder::new(plan.forwards, forwarded)).transpose();
    let ports = ports.map_err(|e| failed("published ports", &e))?;
    Services::new(names, ports)
        .map(|all| Box::new(all) as Box<dyn Service>)
        .map_err(|e| failed("services", &e))
}

struct Services {
    epoll: OwnedFd,
    names: Option<Resolver>,
    ports: Option<Forwarder>,
}

impl Services {
    fn new(names: Option<Resolver>, ports: Option<Forwarder>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let fds = names.iter().map(Resolver::fd).chain(ports.iter().map(Forwarder::fd));
        for (number, fd) in (0..).zip(fds) {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN)?;
        }
        Ok(Self { epoll, names, ports })
    }
}

impl Service for Services {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn ready(&mut self) {
        // Both look for themselves whether there is something to do.
        if let Some(names) = &mut self.names {
            names.ready();
        }
        if let Some(ports) = &mut self.ports {
            ports.ready();
        }
    }

    fn wait(&self) -> Option<Duration> {
        let names = self.names.as_ref().and_then(Resolver::wait);
        let ports = self.ports.as_ref().and_then(Forwarder::wait);
        names.into_iter().chain(ports).min()
    }
}
