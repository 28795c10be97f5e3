//! What integration tests, the demo and the benchmark stand on: private worlds and what lives in them.
//!
//! | module | owns |
//! |---|---|
//! | [`world`] | a process tree with network, mounts, pids and cgroups of its own, which ends as one |
//! | [`cgroup`] | the world's part of the machine's cgroup trees |
//! | [`builds`] | the same Dockerfiles built by everybody, and what differs |
//! | [`bundle`] | OCI bundles and the runtime they are given to |
//! | [`archive`] | images made by hand, as tools would never make them |
//! | [`cache`] | where images and templates are kept between runs |
//! | [`kernel`] | the kernels that tests boot, and kernels made by hand |
//! | [`seed`] | engine roots that already hold images |
//! | [`command`] | programs run with a deadline, their results and the assertions on them |
//! | [`daemon`] | other people's daemons |
//! | [`leak`] | what a container must not leave behind |
//! | [`registry`] | a real registry on loopback |
//! | [`terminal`] | a pseudo-terminal to run a program on |
//! | [`whole`] | an image that is a whole system |
//! | [`harness`] | the list of tests, what they need, how each enters its world |

pub mod archive;
pub mod builds;
pub mod bundle;
pub mod cache;
pub mod cgroup;
pub mod command;
pub mod daemon;
pub mod foreign;
pub mod harness;
pub mod kernel;
pub mod leak;
pub mod registry;
pub mod seed;
pub mod systemd;
pub mod terminal;
pub mod whole;
pub mod world;
