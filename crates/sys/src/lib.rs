//! Linux calls made safe: all unsafe code of the container side.

#![allow(unsafe_code)]

pub mod bpf;
pub mod capability;
pub mod clone;
pub mod counter;
pub mod detach;
pub mod directory;
pub mod disposition;
pub mod flag;
pub mod heap;
pub mod keyring;
pub mod message;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod pidfd;
pub mod program;
pub mod schedule;
pub mod seccomp;
pub mod signalfd;
pub mod tap;
pub mod title;
