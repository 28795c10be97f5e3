//! The firewall: one nf_tables table, `inet catamaran`.
//!
//! Its chains never change ([`ruleset`]); what changes are elements of its sets and maps: an interface or a
//! subnet a network, a map entry a published port ([`elements`]). The chain `catamaran-admin` is the
//! administrator's: every forwarded packet passes it first, and it is never flushed here. Base chains of
//! other tables go before these with a priority below -100 (destination NAT) or 0 (forward).

pub mod elements;
pub mod resolver;
pub mod ruleset;

use rustix::io::Errno;

use crate::Error;
use crate::netlink::message::Batch;
use crate::netlink::nftables::{Deletion, Transaction, get_element};
use crate::netlink::{Channel, NetlinkError};
use crate::record::Network;
use crate::request::PublishedPort;

pub use ruleset::TABLE;

/// The firewall of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Firewall {
    channel: Channel,
    deletion: Deletion,
}

impl Firewall {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open(cata_sys::netlink::NETFILTER).map_err(Error::netlink("firewall"))?;
        Ok(Self { channel, deletion: deletion() })
    }

    /// Whether this version's rules are there and know the network.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn knows(&self, network: &Network) -> Result<bool, Error> {
        let mut batch = Batch::new();
        get_element(&mut batch, TABLE, ruleset::GENERATION, &ruleset::VERSION.to_ne_bytes());
        get_element(&mut batch, TABLE, ruleset::BRIDGES, &elements::interface(&network.interface));
        match self.channel.apply(&batch) {
            Ok(()) => Ok(true),
            Err(refused) if refused.is(Errno::NOENT) => Ok(false),
            Err(refused) => Err(Error::netlink("look at the firewall")(refused)),
        }
    }

    /// Makes the rules, or renews those of another version, and tells them of the network and of what is
    /// published on it. `guard`: forwarding was off until now, so packets that are not containers' stay put.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn install(
        &self,
        network: &Network,
        ports: &[(PublishedPort, std::net::IpAddr)],
        guard: &[u8],
    ) -> Result<(), Error> {
        let mut transaction = Transaction::begin(TABLE);
        ruleset::write(&mut transaction);
        for family in guard {
            transaction.add_element(ruleset::GUARDED, &[*family], None);
        }
        elements::add_network(&mut transaction, network);
        self.channel
            .apply(&transaction.end())
            .map_err(Error::netlink(format!("add network {} to the firewall", network.name)))?;
        self.publish(ports)
    }

    /// Redirects published ports to a container's address.
    ///
    /// The caller holds the reservations: whatever the maps still say of these ports is stale.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn publish(&self, ports: &[(PublishedPort, std::net::IpAddr)]) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let attempt = |lenient: bool| {
            let mut transaction = Transaction::begin(TABLE);
            for (port, target) in ports {
                if lenient {
                    elements::unpublish(&mut transaction, Deletion::Lenient, port);
                }
                elements::publish(&mut transaction, port, *target);
            }
            self.channel.apply(&transaction.end())
        };
        let first = attempt(self.deletion == Deletion::Lenient);
        let outcome = match first {
            // Before Linux 6.3 a stale entry has to be taken away by itself.
            Err(refused) if refused.is(Errno::EXIST) || refused.is(Errno::BUSY) => {
                self.unpublish(ports.iter().map(|(port, _)| port))?;
                attempt(false)
            }
            other => other,
        };
        outcome.map_err(Error::netlink("publish ports"))
    }

    /// Takes published ports away; what is not there is well.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn unpublish<'p>(&self, ports: impl Iterator<Item = &'p PublishedPort>) -> Result<(), Error> {
        let ports: Vec<PublishedPort> = ports.copied().collect();
        for batch in elements::unpublish_batches(self.deletion, &ports) {
            tolerant(self.channel.apply(&batch)).map_err(Error::netlink("withdraw published ports"))?;
        }
        Ok(())
    }

    /// The messages that take published ports away, for whoever does it later.
    #[must_use]
    pub fn unpublish_later(&self, ports: &[PublishedPort]) -> Vec<Vec<u8>> {
        elements::unpublish_batches(self.deletion, ports).into_iter().map(Batch::into_bytes).collect()
    }

    /// Forgets a network; what is not there is well.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn remove(&self, network: &Network) -> Result<(), Error> {
        for batch in elements::remove_batches(self.deletion, network) {
            tolerant(self.channel.apply(&batch))
                .map_err(Error::netlink(format!("remove network {} from the firewall", network.name)))?;
        }
        Ok(())
    }
}

fn tolerant(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(refused) if refused.is(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Lenient deletions exist since Linux 6.3.
fn deletion() -> Deletion {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 3) { Deletion::Lenient } else { Deletion::Strict }
}
