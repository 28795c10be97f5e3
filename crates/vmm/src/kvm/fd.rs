//! Descriptors between crates that know ownership and crates that do not.
#![expect(unsafe_code, reason = "raw descriptors of the rust-vmm crates")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use kvm_ioctls::Kvm;
use vmm_sys_util::eventfd::EventFd;

/// An eventfd as the rest of the world knows descriptors.
pub(crate) fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `eventfd` is borrowed.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

/// An open `/dev/kvm` as the crate's handle.
pub(crate) fn kvm(fd: OwnedFd) -> Kvm {
    // SAFETY: ownership of an open descriptor is handed over; what it is of is found out by the first call.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}
