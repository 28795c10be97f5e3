//! The kernel's keyrings.

use rustix::io::Errno;

/// `KEYCTL_JOIN_SESSION_KEYRING`.
const JOIN_SESSION: libc::c_long = 1;

/// Leaves the session keyring that was inherited, with the keys of whoever logged in, for a new empty one.
///
/// # Errors
/// `ENOSYS` without keyrings, `EPERM` where a filter forbids the call, `EDQUOT` when the user has too many.
pub fn leave_session() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring; no memory is read or written.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, std::ptr::null::<libc::c_char>()) };
    if result >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> libc::c_long {
        // `KEYCTL_GET_KEYRING_ID` of `KEY_SPEC_SESSION_KEYRING`, without making one.
        // SAFETY: it takes numbers only.
        unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }
    }

    #[test]
    fn session_keyring_is_another_afterwards() {
        let before = session();
        match leave_session() {
            Ok(()) => assert!(session() > 0 && session() != before),
            Err(errno) => assert!(matches!(errno, Errno::NOSYS | Errno::PERM), "{errno}"),
        }
    }
}
