//! What signals do to this process, and which it does not take now.

use rustix::io::Errno;

/// Every signal back to its default, and none blocked: what a program expects to be started with.
///
/// # Errors
/// That of `sigprocmask`.
pub fn reset() -> Result<(), Errno> {
    (1..=64).for_each(to_default);
    let mut none = empty();
    // SAFETY: `none` is a valid set and outlives the call; the old set is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw mut none, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(Errno::INVAL) }
}

/// What ends a program from outside ends this one again and those that it starts: a shell has it ignored by what it
/// puts in the background.
pub fn heed_ends() {
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].into_iter().for_each(to_default);
}

/// Those that cannot be changed stay.
fn to_default(signal: i32) {
    // By the bare call: the C library keeps 32 and 33 for itself and refuses them, but they may have been
    // inherited as ignored. All zero is the kernel's default action, with no flags.
    let default = [0u64; 4];
    // SAFETY: the kernel reads an action of at most 32 bytes with an 8-byte mask, and writes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, 0usize, 8usize) };
}

/// Blocks every signal that can be blocked: they are then taken with [`wait`].
///
/// # Errors
/// That of `sigprocmask`.
pub fn block_all() -> Result<(), Errno> {
    let mut all = empty();
    // SAFETY: `all` is a valid set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: as in `reset`.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw mut all, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(Errno::INVAL) }
}

/// Waits for any blocked signal and takes it.
///
/// # Errors
/// `EINTR` when interrupted.
pub fn wait() -> Result<i32, Errno> {
    let mut all = empty();
    // SAFETY: `all` is a valid set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is a valid set; no further information is asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    if signal > 0 { Ok(signal) } else { Err(Errno::INTR) }
}

fn empty() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: it is given room for a set and initialises it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised it.
    unsafe { set.assume_init() }
}

/// Sends any signal, a real-time one too.
///
/// # Errors
/// `ESRCH` when the process has ended.
pub fn send(pid: rustix::process::Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: it takes numbers only.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    if result == 0 { Ok(()) } else { Err(Errno::SRCH) }
}
