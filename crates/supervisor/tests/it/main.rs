//! A real supervisor with a real process, in directories of its own. Needs root.

mod faults;
mod life;
mod memory;
mod streams;
mod world;
