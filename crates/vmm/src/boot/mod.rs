//! What is in memory and registers when the guest's first instruction runs: there is no firmware.

mod acpi;
pub(crate) mod cpu;
mod kernel;

pub(crate) use kernel::{Entry, Start, load};
