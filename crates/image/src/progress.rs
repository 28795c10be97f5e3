//! What happens during a transfer, as typed events; the door renders them.

use cata_spec::{Digest, Reference};

/// Receives events; called from several threads.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: Event);
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The image that a container is to be made of is not here, and will be pulled.
    Absent {
        /// What was asked for.
        reference: Reference,
    },
    /// The reference was found on `registry` (a mirror's host when one served it) as this manifest.
    Resolved {
        /// What was asked for.
        reference: Reference,
        /// The manifest's (or index's) digest.
        digest: Digest,
        /// Who answered.
        registry: String,
    },
    /// The transfer consists of this layer, among others; `total` is its compressed size.
    Layer {
        /// The blob.
        digest: Digest,
        /// Bytes to transfer.
        total: u64,
    },
    /// The layer is there already (pull) or on the registry already (push).
    Exists {
        /// The blob.
        digest: Digest,
    },
    /// So many of the layer's bytes are there now, resumed ones included.
    Downloaded {
        /// The blob.
        digest: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// So many of the layer's bytes are on the registry now.
    Uploaded {
        /// The blob.
        digest: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// The layer was mounted from another repository of the registry.
    Mounted {
        /// The blob.
        digest: Digest,
        /// The other repository.
        from: String,
    },
    /// The connection broke; it is tried again after a pause.
    Retrying {
        /// The blob.
        digest: Digest,
        /// Which attempt comes next.
        attempt: u32,
        /// What went wrong.
        reason: String,
    },
    /// All bytes are there and verified; the rest of the layer is being unpacked.
    Extracting {
        /// The blob.
        digest: Digest,
    },
    /// The layer is unpacked, or its upload is complete.
    Done {
        /// The blob.
        digest: Digest,
    },
}

/// Discards every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}
