//! Guest memory mapped for the guest before it asks: one call instead of an exit for each page.
#![expect(unsafe_code, reason = "KVM_PRE_FAULT_MEMORY is not in kvm-ioctls")]

use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;

/// `_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)`.
const PRE_FAULT_MEMORY: libc::c_ulong = 3 << 30 | 64 << 16 | 0xae << 8 | 0xd5;

/// `struct kvm_pre_fault_memory`.
#[repr(C)]
struct Range {
    address: u64,
    size: u64,
    flags: u64,
    padding: [u64; 5],
}

/// Maps what is in memory already. Since Linux 6.12; where it cannot be done, the guest's own faults do it.
pub(crate) fn prefault(vcpu: &VcpuFd, (address, size): (u64, u64)) {
    let mut range = Range { address, size, flags: 0, padding: [0; 5] };
    while range.size > 0 {
        // SAFETY: the kernel reads and writes `range`, which is laid out as it expects.
        let answer = unsafe { libc::ioctl(vcpu.as_raw_fd(), PRE_FAULT_MEMORY as _, &raw mut range) };
        let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if answer != 0 && !interrupted {
            return;
        }
    }
}
