//! Layers: tar streams, plain, gzip or zstd, turned into directories in overlay's form.
//!
//! Everything here eats bytes that a stranger wrote. [`header`] and [`pax`] read them, [`reader`] puts
//! entries together, [`apply`](mod@apply) makes them beneath one directory and nowhere else, [`unpack`] runs
//! decompression, verification and making side by side. The other way round, [`diff`] writes an overlay's
//! upper directory as a layer, and [`twin`] makes a layer once more for other owners.

pub(crate) mod apply;
pub mod compare;
pub(crate) mod compression;
pub mod diff;
pub(crate) mod header;
pub(crate) mod header_out;
pub(crate) mod owners;
pub(crate) mod pax;
pub(crate) mod place;
pub(crate) mod reader;
pub(crate) mod sparse;
pub(crate) mod twin;
pub(crate) mod unpack;
pub(crate) mod whiteout;

pub use apply::{apply_to_null, unpack_archive};
pub(crate) use unpack::unpack_blob;
