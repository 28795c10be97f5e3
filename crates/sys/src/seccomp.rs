//! Loading a seccomp filter into the calling thread.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions are skipped when a condition holds.
    pub jump_true: u8,
    /// How many instructions are skipped when it does not.
    pub jump_false: u8,
    /// Constant operand.
    pub operand: u32,
}

/// Also log every action but ALLOW (`SECCOMP_FILTER_FLAG_LOG`).
pub const FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// Apply to all threads of the process (`SECCOMP_FILTER_FLAG_TSYNC`).
pub const FLAG_TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
/// Leave the mitigation of speculative store bypass off (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
pub const FLAG_SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// A call that a listener has received waits for its answer, and only fatal signals interrupt it
/// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Confines the calling thread for the rest of its life, and all its children.
///
/// Allocates nothing: may be called between clone and exec. The thread needs CAP_SYS_ADMIN in its user
/// namespace or `no_new_privs`.
///
/// # Errors
/// EACCES without either; EINVAL for a program the kernel's verifier refuses or an unknown flag; ESRCH for a
/// thread that could not be synchronised (`FLAG_TSYNC`).
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let description =
        libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `Instruction` has the layout of `struct sock_filter` (checked below), `description` names `len`
    // of them, and the kernel only reads them during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description)
    };
    match result {
        0 => Ok(()),
        // With TSYNC a positive result is the thread that could not follow.
        1.. => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same, and returns a descriptor that gets the calls for which the program answers `USER_NOTIF`. It
/// closes on exec.
///
/// # Errors
/// Those of [`load`]; EBUSY when an outer filter has a listener already.
pub fn load_notifying(program: &[Instruction], flags: u32) -> io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let description =
        libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let flags = flags & !FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    // SAFETY: as in `load`.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description)
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel made this descriptor for this call.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
        && std::mem::offset_of!(Instruction, code) == std::mem::offset_of!(libc::sock_filter, code)
        && std::mem::offset_of!(Instruction, jump_true) == std::mem::offset_of!(libc::sock_filter, jt)
        && std::mem::offset_of!(Instruction, jump_false) == std::mem::offset_of!(libc::sock_filter, jf)
        && std::mem::offset_of!(Instruction, operand) == std::mem::offset_of!(libc::sock_filter, k)
);
