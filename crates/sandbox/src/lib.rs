//! One container, one supervisor: state machine, stdio, logs, exec, health, restart.
//!
//! [`start::launch`] starts a supervisor, [`client`] talks to it, [`status`] and [`log`] read what it writes
//! without it, [`journal`] has what happened; [`driver::run`] is the supervisor itself. [`step`](mod@step) is its heart, and pure.

pub mod client;
pub mod driver;
pub mod health;
pub mod hold;
pub mod journal;
pub mod launch;
pub mod log;
pub mod moment;
pub mod protocol;
pub mod recover;
pub mod service;
pub mod stamp;
pub mod start;
pub mod state;
pub mod status;
pub mod step;
pub mod undo;

pub use start::{LaunchError, Pending, Running, launch};
