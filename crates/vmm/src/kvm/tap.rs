//! A tap's settings that only the one who uses it knows.
#![expect(unsafe_code, reason = "TUN ioctls")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The receiver takes frames whose checksum is not filled in.
pub(crate) const CSUM: u32 = 1;
/// It takes large TCP segments over IPv4.
pub(crate) const TSO4: u32 = 2;
/// And over IPv6.
pub(crate) const TSO6: u32 = 4;
/// And with ECN.
pub(crate) const ECN: u32 = 8;

const TUNSETOFFLOAD: libc::c_ulong = 1 << 30 | 4 << 16 | 0x54 << 8 | 208;
const TUNSETVNETHDRSZ: libc::c_ulong = 1 << 30 | 4 << 16 | 0x54 << 8 | 216;

/// How long the virtio header before each frame is.
pub(crate) fn set_header_size(tap: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ as _, &raw const bytes) })
}

/// What the receiver of frames can do by itself.
pub(crate) fn set_offloads(tap: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) })
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
