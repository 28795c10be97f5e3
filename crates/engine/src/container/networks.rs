//! `network connect` and `network disconnect`: other networks for a container, running or not.
//!
//! The record is written first, so that a later start has what was asked even if this process is killed. A running
//! container's network is changed by this process, from within the namespace that the supervisor hands out; then the
//! supervisor is told what it has to take away at the end and what it serves. `network.json` has what is whole: it
//! says last that there is one more, and first that there is one less. What is half-done when this process is killed
//! is on no list then; the next change takes it away, or the container's end.

use std::os::fd::{AsFd as _, BorrowedFd};

use cata_network::record::Driver;
use cata_network::request::{Changed, EndpointRequest, Link, Present};
use cata_network::{EndpointRecord, Network};
use cata_sandbox::client::Client;
use cata_sandbox::launch::Isolation;
use cata_sandbox::protocol::NetworkChange;

use crate::container::live::{NETWORK_FILE, NetworkFacts, Owner};
use crate::container::start::write_in_place;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result, client_error};
use crate::event::disconnects;
use crate::ledger::{self, Durability};
use crate::network::{network_error, ports, undo, who};
use crate::plan::hosts;
use crate::record::Record;
use crate::request::{CreateRequest, NetworkMode};
use crate::rootless::outside;

/// What one cannot have beside the host's network, or another container's.
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
const PRIVATE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";
const HOST: &str = "container cannot be disconnected from host network or connected to host network";

impl Engine {
    /// Networks of a request by their names, however they were called; refuses what they cannot give.
    pub(crate) fn name_networks(&self, request: &mut CreateRequest) -> Result<()> {
        let NetworkMode::Networks(endpoints) = &mut request.network else { return Ok(()) };
        for endpoint in endpoints {
            let network = self.network(endpoint.network.as_str())?;
            check_wish(&network, endpoint)?;
            endpoint.network = network.name;
            self.name_links(&mut endpoint.links)?;
        }
        Ok(())
    }

    /// Linked containers by what stays when they are renamed: every network knows short ids.
    fn name_links(&self, links: &mut [Link]) -> Result<()> {
        for link in links {
            link.to = self.find(&link.to)?.id.short().to_owned();
        }
        Ok(())
    }

    /// Puts a container on one more network; at once if it runs, else when it starts. Returns what the user should
    /// know.
    ///
    /// # Errors
    /// No such network or container; it is on it already; an address that is taken or not the network's; what has
    /// a network that is not its own.
    pub fn network_connect(
        &self,
        network: &str,
        container: &str,
        wish: EndpointRequest,
    ) -> Result<Vec<String>> {
        let network = self.network(network)?;
        let found = self.find(container)?;
        let mut wish = EndpointRequest { network: network.name.clone(), ..wish };
        check_wish(&network, &wish)?;
        self.name_links(&mut wish.links)?;
        self.networks()?.check(&wish).map_err(network_error)?;
        let lock = self.lock(&found.id)?;
        let old = self.record(&found.id)?.ok_or_else(|| Error::NoContainer(container.to_owned()))?;
        check_connectable(&old, &network)?;
        let mut running = self.running(&old)?;
        let mut list = old.endpoints();
        let listed = list.iter().any(|e| e.network == network.name);
        let joined = running.as_ref().map(|(_, facts)| facts.is_on(&network));
        if joined == Some(true)
            && !listed
            && let Some((client, facts)) = running
        {
            // A killed `disconnect` has come no further than the record.
            self.leave(&old, client, &facts, &network)?;
            running = self.running(&old)?;
        } else if joined.unwrap_or(listed) {
            let what = format!("endpoint with name {} already exists in network {}", old.name, network.name);
            return Err(Error::State { what, hint: None });
        }
        if running.is_some() && old.request.isolation == Isolation::Vm {
            return Err(machine());
        }
        list.retain(|e| e.network != network.name);
        list.push(wish.clone());
        let new = Record { networks: Some(list), ..old.clone() };
        ledger::write(&self.dir(&old.id).record(), &new, new.durability())?;
        let outcome = match running {
            Some((client, facts)) => self.join(&new, client, &facts, &wish),
            None => Ok(Vec::new()),
        };
        if outcome.is_err() {
            ledger::write(&self.dir(&old.id).record(), &old, old.durability())?;
        }
        drop(lock);
        outcome
    }

    /// Takes a container off a network; at once if it runs, else when it starts. `force`: also what is left of a
    /// container that is gone.
    ///
    /// # Errors
    /// No such network or container; it is not on it.
    pub fn network_disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let network = self.network(network)?;
        let found = match self.find(container) {
            Err(error) if force && error.kind() == Kind::NotFound => {
                return self.release_stale(&network, container, error);
            }
            found => found?,
        };
        let lock = self.lock(&found.id)?;
        let old = self.record(&found.id)?.ok_or_else(|| Error::NoContainer(container.to_owned()))?;
        if matches!(old.request.network, NetworkMode::Host) || network.driver == Driver::Host {
            return Err(Error::Invalid(HOST.to_owned()));
        }
        let running = self.running(&old)?;
        let mut list = old.endpoints();
        let listed = list.iter().any(|e| e.network == network.name);
        let joined = running.as_ref().is_some_and(|(_, facts)| facts.is_on(&network));
        // What a killed change left is on no list.
        let stale = running.is_some() && self.endpoint_on(&network, |e| e.container == old.id)?.is_some();
        if !listed && !joined && !stale {
            let what = format!("container {} is not connected to network {}", old.id, network.name);
            return Err(Error::State { what, hint: None });
        }
        if running.is_some() && old.request.isolation == Isolation::Vm {
            return Err(machine());
        }
        list.retain(|e| e.network != network.name);
        let new = Record { networks: Some(list), ..old.clone() };
        ledger::write(&self.dir(&old.id).record(), &new, new.durability())?;
        if let Some((client, facts)) = running {
            self.leave(&new, client, &facts, &network)?;
        }
        self.tell_endpoint(&new, &network, "disconnect");
        drop(lock);
        Ok(())
    }

    /// A container that has a network now: who is told of changes, and what there is.
    fn running(&self, record: &Record) -> Result<Option<(Client, NetworkFacts)>> {
        if self.settled(&record.id)?.1 != Owner::Alive {
            return Ok(None);
        }
        let Some(client) = self.try_client(&record.id)? else { return Ok(None) };
        Ok(Some((client, self.network_facts(&record.id))))
    }

    fn join(
        &self,
        record: &Record,
        mut client: Client,
        facts: &NetworkFacts,
        wish: &EndpointRequest,
    ) -> Result<Vec<String>> {
        let Some(present) = self.present_network(record, &mut client, facts)? else { return Ok(Vec::new()) };
        let way_out = self.way_out(std::slice::from_ref(wish))?;
        let networks = self.networks()?;
        let changed = networks.join(&present, wish).map_err(network_error)?;
        let joined = changed.endpoints.clone();
        if let Err(error) = self.settle(record, &mut client, facts, changed) {
            let present = Present { endpoints: joined, ..present };
            let _ = networks.leave(&present, &wish.network);
            let _ = networks.release_from(&wish.network, &record.id);
            return Err(error);
        }
        let network = self.network(wish.network.as_str())?;
        self.tell_endpoint(record, &network, "connect");
        let warnings = way_out.and_then(outside::Opening::finish).err();
        Ok(warnings
            .map(|why| format!("its networks have no way out of this host: {why}"))
            .into_iter()
            .collect())
    }

    fn leave(
        &self,
        record: &Record,
        mut client: Client,
        facts: &NetworkFacts,
        network: &Network,
    ) -> Result<()> {
        let networks = self.networks()?;
        // From here on it is not on it, whatever becomes of this process.
        let mut less = facts.clone();
        less.endpoints.retain(|endpoint| endpoint.network != network.name);
        self.write_facts(record, &less)?;
        // One that ends this moment takes everything away itself.
        if let Some(present) = self.present_network(record, &mut client, facts)? {
            let changed = networks.leave(&present, &network.name).map_err(network_error)?;
            self.settle(record, &mut client, facts, changed)?;
        }
        // Last: a killed process leaves what the next change, or the container's end, finds by it.
        networks.release_from(&network.name, &record.id).map_err(network_error)
    }

    /// What a running container has; `None` when it has ended for good.
    fn present_network(
        &self,
        record: &Record,
        client: &mut Client,
        facts: &NetworkFacts,
    ) -> Result<Option<Present>> {
        let namespace = match client.network() {
            Ok(namespace) => namespace,
            Err(_) if self.ends(record)? => return Ok(None),
            Err(error) => return Err(client_error("change the networks", &error)),
        };
        let user_made =
            facts.endpoints.iter().any(|endpoint| endpoint.network.as_str() != cata_network::DEFAULT);
        Ok(Some(Present {
            who: who(record),
            endpoints: facts.endpoints.clone(),
            ports: [&facts.ports[..], &facts.held].concat(),
            wanted: ports(record)?,
            namespace,
            names: facts.names || user_made,
            dns_upstream: record.request.dns.clone(),
            links: record.endpoints().into_iter().flat_map(|wish| wish.links).collect(),
        }))
    }

    /// Whether a container that was running is not any more, or will not be in a moment.
    fn ends(&self, record: &Record) -> Result<bool> {
        let (status, owner) = self.status(&record.id)?;
        Ok(owner != Owner::Alive || status.status == cata_sandbox::status::StatusKind::Exited)
    }

    /// The supervisor is told, then everybody else.
    fn settle(
        &self,
        record: &Record,
        client: &mut Client,
        before: &NetworkFacts,
        changed: Changed,
    ) -> Result<()> {
        let (ports, held) =
            if changed.published { (changed.ports, Vec::new()) } else { (Vec::new(), changed.ports) };
        let left = NetworkFacts { endpoints: changed.left, ..NetworkFacts::default() };
        let facts = NetworkFacts { endpoints: changed.endpoints, ports, held, names: changed.names };
        let serves = changed.services.names.is_some() || !changed.services.forwards.is_empty();
        let plan = serves.then(|| serde_json::to_value(&changed.services)).transpose();
        let change = NetworkChange {
            undo: changed.teardown.into_iter().map(undo).collect(),
            endings: disconnects(record, &facts),
            service_plan: plan.map_err(|error| Error::Invalid(error.to_string()))?,
            service_sockets: changed.dns_sockets.len() + changed.forwarded.len(),
        };
        let fds = changed.dns_sockets.iter().chain(&changed.forwarded).chain(&changed.reservations);
        let fds: Vec<BorrowedFd<'_>> = fds.map(|fd| fd.as_fd()).collect();
        match client.set_network(change, &fds) {
            Ok(()) => {}
            // Nobody is left to be told; what it did not know of is found by records.
            Err(_) if self.ends(record)? => return self.release_network(&record.id),
            Err(error) => return Err(client_error("change the networks", &error)),
        }
        match self.change_network_files(record, (before, &left), &facts) {
            // Nobody is left to read them.
            Err(_) if self.ends(record)? => return Ok(()),
            outcome => outcome?,
        }
        self.write_facts(record, &facts)
    }

    /// Says where it is; a container that has ended is nowhere.
    fn write_facts(&self, record: &Record, facts: &NetworkFacts) -> Result<()> {
        match ledger::write(&self.paths.live(&record.id).join(NETWORK_FILE), facts, Durability::Volatile) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// What the container reads of its own addresses and of who knows names; what somebody has written into these
    /// files himself stays.
    fn change_network_files(
        &self,
        record: &Record,
        (before, left): (&NetworkFacts, &NetworkFacts),
        now: &NetworkFacts,
    ) -> Result<()> {
        let dir = self.dir(&record.id);
        let (old, new) = (before.addresses(), now.addresses());
        // A killed change may have come to the file, or not.
        let all = old.iter().copied().chain(left.addresses());
        let gone: Vec<_> = all.filter(|address| !new.contains(address)).collect();
        let come: Vec<_> = new.iter().copied().filter(|address| !old.contains(address)).collect();
        let text = std::fs::read_to_string(dir.hosts()).map_err(Error::file("read", dir.hosts()))?;
        let domain = record.request.domainname.as_deref();
        let changed = hosts::changed(&text, (&gone, &come), &record.config.hostname, domain);
        if changed != text {
            write_in_place(&dir.hosts(), &changed)?;
        }
        let path = dir.resolv_conf();
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        if now.names && text == self.resolv_conf(record, false) {
            write_in_place(&path, &self.resolv_conf(record, true))?;
        }
        Ok(())
    }

    /// An endpoint of a network.
    fn endpoint_on(
        &self,
        network: &Network,
        fits: impl Fn(&EndpointRecord) -> bool,
    ) -> Result<Option<EndpointRecord>> {
        let inspection = self.networks()?.inspect(network.name.as_str()).map_err(network_error)?;
        Ok(inspection.endpoints.into_iter().find(fits))
    }

    /// What is left of a container that is gone.
    fn release_stale(&self, network: &Network, container: &str, missing: Error) -> Result<()> {
        let fits =
            |e: &EndpointRecord| e.name.as_str() == container || e.container.as_str().starts_with(container);
        match self.endpoint_on(network, fits)? {
            Some(found) => {
                self.networks()?.release_from(&network.name, &found.container).map_err(network_error)
            }
            None => Err(missing),
        }
    }
}

fn check_wish(network: &Network, wish: &EndpointRequest) -> Result<()> {
    if network.name.as_str() == cata_network::DEFAULT && !wish.aliases.is_empty() {
        let what = "network-scoped alias is supported only for containers in user defined networks";
        return Err(Error::Invalid(what.to_owned()));
    }
    if network.name.as_str() == cata_network::DEFAULT && !wish.links.is_empty() {
        return Err(Error::Unsupported {
            what: "--link is not supported on the default bridge".to_owned(),
            hint: "put both on a network of their own (`cata network create`): there they find each other by name"
                .to_owned(),
        });
    }
    Ok(())
}

fn check_connectable(record: &Record, network: &Network) -> Result<()> {
    let refused = |what: &str| Err(Error::Invalid(what.to_owned()));
    match (&record.request.network, network.driver) {
        (NetworkMode::Host | NetworkMode::Container(_), _) => refused(SHARED),
        (_, Driver::Host) => refused(HOST),
        (NetworkMode::None, _) | (_, Driver::Null) => refused(PRIVATE),
        (NetworkMode::Networks(_), Driver::Bridge) => Ok(()),
    }
}

fn machine() -> Error {
    Error::Unsupported {
        what: "the networks of a running virtual machine cannot be changed: its devices are made with it"
            .to_owned(),
        hint: "stop it first: it has other networks when it starts again".to_owned(),
    }
}
