//! What a hypervisor process and its guest say to each other, and what is said about a machine.
//!
//! [`protocol`] is the channel between the two, [`order`] what a hypervisor process is told at birth,
//! [`report`] what it tells the supervisor, [`view`] what a process sees of the kernel it runs on. The program `cata-guest` of this package is process 1 of the guest.

pub mod order;
pub mod protocol;
pub mod report;
pub mod view;
