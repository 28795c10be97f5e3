//! Processes by descriptor: a pid may be reused, a pidfd may not.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Sends a signal by number (real-time signals too). A process that has ended is success: it got what
/// any signal could have done to it.
///
/// # Errors
/// `EINVAL` for a number that is no signal, `EPERM`.
pub fn signal(process: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed; a null siginfo is what `kill` would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}
