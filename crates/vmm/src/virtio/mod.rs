//! Virtio: the transport, queues, the thread that serves them, and the devices.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod console;
pub(crate) mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod driver;
pub(crate) mod fs;
pub(crate) mod mmio;
pub(crate) mod net;
pub(crate) mod ring;
pub(crate) mod rng;
pub(crate) mod vsock;
pub(crate) mod worker;
