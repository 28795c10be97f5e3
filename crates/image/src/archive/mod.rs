//! Archives: what `save` writes, `load` reads and `import` makes an image of.

pub(crate) mod document;
pub(crate) mod ingest;
pub(crate) mod instruction;
pub(crate) mod writer;

pub use instruction::apply as apply_change;
