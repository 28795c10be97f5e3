//! From Compose files to a project: parse, interpolate, merge, order.
//!
//! Everything here is data in and data out. [`node`] reads YAML into a tree that knows its lines, [`variable`]
//! replaces `${…}`, [`mod@merge`] lays files over each other, [`project`] and [`service`] read the keys, [`graph`] says
//! who comes first, and [`words`] says each container as the command line of `cata create`. What is done with it
//! is the command line's: `cata compose`.

pub mod build;
pub mod develop;
pub mod error;
mod extend;
mod fields;
mod flags;
pub mod graph;
pub mod hook;
mod include;
pub mod merge;
pub mod mount;
pub mod node;
pub mod plan;
pub mod project;
pub mod service;
pub mod supply;
pub mod variable;
pub mod words;
pub mod write;

pub use error::{Error, Place, Result};
pub use project::{Around, Asked, Project, load};
pub use service::{Condition, Pull, Service};
pub use words::{Wanted, Which};
