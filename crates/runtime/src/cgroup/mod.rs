//! Control groups, version 1, 2 and hybrid, made directly in the file system (the `cgroupfs` driver) or by systemd
//! ([`Unit`]).
//!
//! [`Layout::detect`] looks at the machine, [`plan`] decides (pure), [`create`] performs. A [`Cgroup`] holds a
//! descriptor of each of its directories, so that nothing is looked up by path twice.
//!
//! # Which hierarchies are used on version 1
//!
//! Each directory costs (measured on 6.18: make 20-75 µs, add a process 25-55, remove 15-40, altogether 0.9 ms
//! for nine; what is made here costs 0.3 ms, with version 1 alone 0.5), so that only those are made that
//! something depends on:
//!
//! - `memory` always: OOM detection, peak and usage; `blkio` always: bytes read and written;
//! - `devices` when not every device is allowed; `pids`, `cpu`, `cpuset`, `hugetlb`, … when a limit asks;
//! - hybrid machines (a cgroup2 mount beside version 1) on Linux 5.14 and later: a directory in the cgroup2
//!   hierarchy, where processes are born by `CLONE_INTO_CGROUP` for next to nothing. It freezes, kills and
//!   counts CPU time without any controller, so `freezer` and `cpuacct` are not needed;
//! - otherwise `freezer` (pause, and killing without races) and `cpuacct` (CPU time).
//!
//! [`Cgroup::update`] adds a hierarchy later when a new limit needs one. In hierarchies that are not used the
//! processes stay in the cgroup of who started them, also as `/proc/self/cgroup` shows it to them.

mod apply;
mod control;
mod devices;
mod error;
mod files;
mod layout;
mod limits;
mod plan;
mod stats;
mod systemd;

pub use apply::create;
pub use control::Cgroup;
pub use devices::{DevicePolicy, DeviceProgram};
pub use error::CgroupError;
pub use layout::{Controller, Hierarchy, Layout};
pub use plan::{CgroupPlan, Directory, Need, Write, plan};
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};
pub use systemd::{Manager, Property, Unit, Value, Wish};
