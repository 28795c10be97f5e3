//! What a supervisor serves for others: names and published ports, as the sandbox's one service.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use cata_network::dns::{DnsPlan, Resolver};
use cata_network::forward::{Forward, Forwarder};
use cata_network::request::ServicePlan;
use cata_sandbox::service::Service;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Makes what is planned; the sockets are those of the name service first.
pub(crate) fn make(plan: serde_json::Value, sockets: Vec<OwnedFd>) -> Result<Box<dyn Service>, String> {
    let mut all = Services::new().map_err(|error| failed("services", &error))?;
    all.change(plan, sockets)?;
    Ok(Box::new(all))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> String {
    format!("{what}: {error}")
}

struct Services {
    epoll: OwnedFd,
    names: Option<Resolver>,
    ports: Option<Forwarder>,
}

impl Services {
    fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, names: None, ports: None })
    }

    fn watch(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(number), EventFlags::IN)?)
    }

    fn serve_names(&mut self, plan: DnsPlan, sockets: Vec<OwnedFd>) -> io::Result<()> {
        if let Some(names) = &mut self.names {
            names.replan(plan);
            return Ok(());
        }
        let names = Resolver::new(plan, sockets)?;
        self.watch(names.fd(), 0)?;
        self.names = Some(names);
        Ok(())
    }

    fn serve_ports(&mut self, forwards: Vec<Forward>, sockets: Vec<OwnedFd>) -> io::Result<()> {
        if let Some(ports) = &mut self.ports {
            return ports.retarget(&forwards);
        }
        let ports = Forwarder::new(forwards, sockets)?;
        self.watch(ports.fd(), 1)?;
        self.ports = Some(ports);
        Ok(())
    }
}

impl Service for Services {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn change(&mut self, plan: serde_json::Value, mut sockets: Vec<OwnedFd>) -> Result<(), String> {
        let plan: ServicePlan = serde_json::from_value(plan).map_err(|e| failed("services", &e))?;
        let new = if self.ports.is_none() { plan.forwards.len() } else { 0 };
        let forwarded = sockets.split_off(sockets.len().saturating_sub(new));
        if let Some(names) = plan.names {
            self.serve_names(names, sockets).map_err(|e| failed("name service", &e))?;
        }
        if !plan.forwards.is_empty() {
            self.serve_ports(plan.forwards, forwarded).map_err(|e| failed("published ports", &e))?;
        }
        Ok(())
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
