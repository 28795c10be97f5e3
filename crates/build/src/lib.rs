//! From a Dockerfile to steps: the language, the graph of stages, cache keys, and the build context.
//!
//! [`parse`](mod@parse) reads a Dockerfile into the [`ast`]; [`graph`] finds the stages that a target needs;
//! [`stage`] turns one stage into [`stage::Step`]s, with every variable expanded, once its base is known;
//! [`key`] names what a step makes; [`attest`] and [`sbom`] write what is attested of the result. All of that is pure: it touches no file, clock, environment or network.
//! [`context`] reads directories: what a COPY takes, and its digest. The engine performs the steps.

pub mod ast;
pub mod attest;
pub mod context;
pub mod error;
pub mod expand;
pub mod graph;
pub mod ignore;
pub mod key;
pub mod lint;
pub mod metadata;
pub mod parse;
pub mod pattern;
pub mod print;
pub mod sbom;
pub mod source;
pub mod stage;

pub use ast::Dockerfile;
pub use error::{Error, Result};
pub use parse::parse;
