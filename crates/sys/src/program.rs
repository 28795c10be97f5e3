//! Becoming another program.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::raw::c_char;
use std::os::unix::process::CommandExt as _;

use rustix::io::Errno;
use rustix::process::Signal;

/// Replaces this process with a program. Returns only on failure.
#[must_use]
pub fn execute(path: &CString, argv: &[CString], env: &[CString]) -> Errno {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, env) = (list(argv), list(env));
    // SAFETY: both lists end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The same with an open file, which may be open as a path only and close on exec. Scripts need it by name.
#[must_use]
pub fn execute_fd(program: BorrowedFd<'_>, argv: &[CString], env: &[CString]) -> Errno {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, env) = (list(argv), list(env));
    let fd = program.as_raw_fd();
    // SAFETY: both lists end with a null pointer and their strings outlive the call, as does the empty name.
    unsafe {
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), env.as_ptr(), libc::AT_EMPTY_PATH)
    };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Has a program that is yet to be started ended by this signal when the thread that starts it ends: it does not outlive
/// a killed parent.
pub fn end_with_parent(command: &mut std::process::Command, signal: Signal) {
    let parent = std::process::id();
    // SAFETY: between fork and exec it makes two system calls, and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // It may have been killed before that call.
            let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
            if now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
                Ok(())
            } else {
                Err(Errno::SRCH.into())
            }
        });
    }
}

/// Marks every descriptor from `first` on to be closed by [`execute`].
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_on_execute_from(first: u32) -> Result<(), Errno> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Gives a copy of a descriptor this number in the program that [`execute`] starts. Whatever had the number is
/// closed: only for a process that is about to execute, and owns nothing by that number any more.
///
/// # Errors
/// `EINVAL` for a standard stream or a negative number, and those of `dup2`.
pub fn give(source: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    if number < 3 || source.as_raw_fd() == number {
        return Err(Errno::INVAL);
    }
    // SAFETY: it takes numbers only; that nobody owns the target is the caller's promise, and a broken one
    // closes a descriptor in a process that ends or executes.
    if unsafe { libc::dup2(source.as_raw_fd(), number) } < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF));
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: it takes numbers only. Descriptors are marked, or closed by `forsake`, which never returns to an owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Closes every descriptor, runs `then`, and ends this process with the code it returns.
///
/// `then` is a plain function, so that it cannot have captured a descriptor.
pub fn forsake(pid: rustix::process::Pid, then: fn(rustix::process::Pid) -> i32) -> ! {
    // Before Linux 5.9 descriptors stay open; nothing better can be done from here.
    let _ = close_range(0, u32::MAX, 0);
    crate::clone::exit(then(pid))
}
