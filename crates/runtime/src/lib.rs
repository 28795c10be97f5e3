//! OCI spec to process: plan, clone, mounts, lockdown, exec.
//!
//! [`plan::plan`] is pure and turns a specification into a [`plan::Plan`]; [`spawn`] performs it in a new
//! process and [`exec`] starts one more process in a running container. Both must be called by a
//! single-threaded process, and no helper program is run.

pub mod cgroup;
pub mod companion;
mod device;
pub mod error;
mod exec;
mod handshake;
pub mod hook;
mod idmap;
mod init;
mod manner;
mod namespace;
mod parent;
pub mod plan;
pub mod rdt;
mod rootfs;
pub mod seccomp;
pub mod signal;
mod spawn;
pub mod user;
pub mod userns;

pub use error::SpawnError;
pub use exec::{exec, exec_with};
pub use init::{has_apparmor, has_selinux};
pub use manner::{Alone, Attendant, Manner, Spawned};
pub use parent::{Handles, start};
pub use plan::{ExecPlan, ExecRequest};
pub use spawn::{spawn, spawn_with};
