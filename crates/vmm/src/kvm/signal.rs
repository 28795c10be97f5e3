//! The signal that takes a processor out of its guest, race-free: it is blocked in the thread and let through
//! only inside `KVM_RUN`, so that one sent a moment too early ends the next `KVM_RUN` at once.
#![expect(unsafe_code, reason = "KVM_SET_SIGNAL_MASK is not in kvm-ioctls")]

use std::io;
use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Error, SIGRTMIN, block_signal, clear_signal};

/// `KVM_SET_SIGNAL_MASK`: `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`, whose fixed part is four bytes.
const SET_SIGNAL_MASK: libc::c_ulong = 1 << 30 | 4 << 16 | 0xae << 8 | 0x8b;

/// `struct kvm_signal_mask` with the kernel's own set behind it.
#[repr(C, packed)]
struct Mask {
    length: u32,
    blocked: u64,
}

/// Which signal it is.
pub(crate) fn number() -> i32 {
    SIGRTMIN()
}

/// Blocks it in this thread, and in those it makes from now on.
pub(crate) fn block() -> io::Result<()> {
    match block_signal(number()) {
        Ok(()) | Err(Error::SignalAlreadyBlocked(_)) => Ok(()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Takes back one that has been delivered.
pub(crate) fn clear() {
    // Only a pending signal can be cleared; none pending is as good.
    let _ = clear_signal(number());
}

/// Inside `KVM_RUN` every signal but this one is blocked.
pub(crate) fn let_through(vcpu: &VcpuFd) -> io::Result<()> {
    let mask = Mask { length: 8, blocked: !(1_u64 << (number() - 1)) };
    // SAFETY: the kernel reads `length` and as many bytes behind it; both are in `mask`.
    match unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SIGNAL_MASK as _, &raw const mask) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
