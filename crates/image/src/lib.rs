//! Blobs, layers, registry, archives.
//!
//! The store is an OCI image layout (`<root>/content`) and one directory for each unpacked layer
//! (`<root>/layers/<diff-id>/diff`). [`store`] owns both; [`registry`] speaks to registries; [`layer`] turns
//! tar streams into directories; [`pull`](mod@pull), [`push`](mod@push), [`load`](mod@load),
//! [`save`](mod@save) and [`import`](mod@import) are the verbs. [`capture`](mod@capture) makes a layer of an
//! overlay's upper directory, [`commit`](mod@commit) an image of layers.
//!
//! All of it is blocking code with threads.

mod archive;
pub mod attest;
pub mod capture;
pub mod commit;
mod compress;
pub mod error;
pub mod fetch;
pub mod import;
pub mod layer;
pub mod layout;
pub mod load;
pub mod progress;
pub mod pull;
mod pull_index;
pub mod push;
mod recompress;
pub mod registry;
pub mod request;
pub mod save;
pub mod store;
mod tags;
pub mod tree;
mod whole;

pub use archive::apply_change;
pub use attest::commit_attestation;
pub use capture::{Captured, Unnamed};
pub use commit::{Written, commit, commit_index, commit_member};
pub use compress::Algorithm;
pub use error::{Access, ArchiveError, Error, Kind, LayerError, RegistryError, StoreError};
pub use import::{import, rfc3339 as timestamp};
pub use layout::{layout_digest, read_layout, write_layout};
pub use load::load;
pub use progress::{Event, Progress, Silent};
pub use pull::{digest_of, pull};
pub use pull_index::pull_index;
pub use push::{push, push_as};
pub use recompress::Recompress;
pub use request::{
    CommitRequest, HistoryLine, Image, ImportRequest, IndexRequest, Loaded, Member, PullRequest, Pulled,
    PushRequest, Pushed, RemoveOptions, Removed, is_attestation,
};
pub use save::{save, save_for};
pub use store::Store;
pub use tags::tags;
