//! A user's network, which stands for the host's: a namespace in which he may make links and rules, held by
//! somebody else. Ports are still the host's, and are listened on there ([`crate::forward`]).

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;
use crate::bridge::Host;
use crate::netlink::message::Batch;
use crate::netlink::route;

const LOOPBACK: u32 = 1;

/// Addresses of what leads out of it: those that `slirp4netns` has unless told otherwise.
pub const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24);

/// Who answers there with what the host's own name servers say.
pub const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));

/// The namespace.
#[derive(Debug, Clone)]
pub struct Inside(Arc<OwnedFd>);

impl Inside {
    /// That of this descriptor.
    #[must_use]
    pub fn new(namespace: OwnedFd) -> Self {
        Self(Arc::new(namespace))
    }

    /// Does something there, on a thread that ends afterwards: there may be no way back from it.
    pub(crate) fn act<T: Send>(&self, act: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let work = || {
            let link = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.0.as_fd(), link).map_err(Error::inside)?;
            act()
        };
        std::thread::scope(|scope| {
            scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its links and its firewall, to be used from anywhere.
    pub(crate) fn open(&self) -> Result<Host, Error> {
        self.act(|| {
            let host = Host::open()?;
            // A new one's is down.
            let mut batch = Batch::new();
            route::set_up(&mut batch, LOOPBACK);
            host.route
                .apply(&batch)
                .map_err(Error::netlink("bring up the loopback of the user's network"))?;
            Ok(host)
        })
    }

    /// What else must not be a network's: the host's own subnets would be out of reach, and the way out has some.
    pub(crate) fn taken(&self) -> Result<Vec<IpNet>, Error> {
        let mut taken = self.open()?.subnets()?;
        taken.extend(Host::open()?.subnets()?);
        taken.push(IpNet::V4(SUBNET));
        Ok(taken)
    }
}
