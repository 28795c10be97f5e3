//! Containers: one file a verb, one for names, one for locks, one for what they are doing.

mod accounts;
mod apparmor;
mod boot;
pub mod changes;
pub mod commit;
pub mod copy;
pub(crate) mod create;
mod devices;
pub mod exec;
mod filter;
mod find;
pub(crate) mod inside;
pub mod inspect;
pub mod life;
pub mod live;
mod lock;
pub mod logs;
pub mod machine;
pub(crate) mod names;
mod networks;
mod ranges;
mod recover;
mod remove;
pub mod size;
mod start;
pub mod stats;
pub mod top;
pub mod update;
pub mod wait;

pub use create::Created;
pub use remove::RemoveOptions;
pub use start::{StartOptions, Started};
