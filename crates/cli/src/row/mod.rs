//! What `ls` commands show of each thing: pure, from the engine's facts to named cells, and which of them
//! the filters let through.

pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod port;
pub(crate) mod process;
