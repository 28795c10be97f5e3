//! What a supervisor serves for others on the side: the name service of the container's network.
//!
//! The sandbox knows neither names nor networks; whoever composes the supervisor brings the service. A
//! service with many descriptors offers an epoll instance of its own as its one descriptor.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// Something with a descriptor that must be looked after.
pub trait Service {
    /// Readable when there is something to do; the same for the service's whole life.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Serves by another plan from now on; `sockets` are those of what was not served before.
    ///
    /// # Errors
    /// In words.
    fn change(&mut self, plan: serde_json::Value, sockets: Vec<OwnedFd>) -> Result<(), String>;
    /// Does what can be done without waiting. Called when [`Service::fd`] is readable, and when the time
    /// of [`Service::wait`] is over.
    fn ready(&mut self);
    /// How long `ready` may stay uncalled; `None`: until there is something to do.
    fn wait(&self) -> Option<Duration>;
}

/// Makes the service from its own plan and its sockets.
pub type Make = fn(serde_json::Value, Vec<OwnedFd>) -> Result<Box<dyn Service>, String>;
