//! Tap devices: a network interface whose other end is a descriptor.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// Longest name of an interface, its end included.
const NAME: usize = libc::IFNAMSIZ;

/// Makes one in the network namespace of the caller, with virtio's headers before packets. It is gone with the
/// last copy of the descriptor, which does not block.
///
/// # Errors
/// `ENOENT` or `ENODEV` without the driver `tun`, `EPERM`, `EBUSY` for a name that is taken.
pub fn make(name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tap = open("/dev/net/tun", flags, Mode::empty())?;
    // SAFETY: all fields are numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= NAME {
        return Err(Errno::INVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        // Of another sign on other processors.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(kind).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open and `request` is a whole, initialised `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(tap)
}
