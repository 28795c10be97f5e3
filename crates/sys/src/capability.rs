//! Capabilities: their names and numbers, and the five sets of the calling thread.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Names by number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability that has a name.
pub const KNOWN: u64 = (1 << NAMES.len()) - 1;

/// `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u64 = 1 << 21;

/// The bit of a name, with or without `CAP_`, whatever its case.
#[must_use]
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|number| 1 << number)
}

/// The names of all bits of a set, as `CAP_SYS_ADMIN`.
pub fn names(bits: u64) -> impl Iterator<Item = String> {
    NAMES
        .iter()
        .enumerate()
        .filter(move |(number, _)| bits >> number & 1 == 1)
        .map(|(_, n)| format!("CAP_{n}"))
}

/// What this thread may still hand to a program it executes.
#[must_use]
pub fn bounding() -> u64 {
    let held = |bit: &u64| rustix::thread::capability_is_in_bounding_set(set(*bit)).unwrap_or(false);
    (0..NAMES.len()).map(|number| 1u64 << number).filter(held).fold(0, |bits, bit| bits | bit)
}

/// The permitted set of this thread.
///
/// # Errors
/// That of `capget`.
pub fn permitted() -> Result<u64, Errno> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Removes from the bounding set everything that is not in `keep`.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> Result<(), Errno> {
    for number in 0..64 {
        let bit = 1u64 << number;
        if keep & bit != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(set(bit)) {
            Ok(()) => {}
            // Numbers beyond the kernel's last capability.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable sets.
///
/// # Errors
/// `EPERM` for a capability that is not held.
pub fn set_sets(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let sets = CapabilitySets {
        effective: set(effective),
        permitted: set(permitted),
        inheritable: set(inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Replaces the ambient set.
///
/// # Errors
/// `EPERM` for a capability that is not both permitted and inheritable.
pub fn set_ambient(bits: u64) -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..NAMES.len() {
        let bit = 1u64 << number;
        if bits & bit != 0 {
            rustix::thread::configure_capability_in_ambient_set(set(bit), true)?;
        }
    }
    Ok(())
}

fn set(bits: u64) -> CapabilitySet {
    CapabilitySet::from_bits_retain(bits)
}

/// Becomes this user and group, with every right kept. For a process with one thread, or a thread, that is thrown
/// away afterwards: only the calling thread changes.
///
/// # Errors
/// `EPERM` without `CAP_SETUID`, `CAP_SETGID` or `CAP_SETPCAP`.
pub fn act_as(uid: u32, gid: u32) -> Result<(), Errno> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_accepts_both_spellings() {
        assert_eq!(bit("CAP_SYS_ADMIN"), Some(SYS_ADMIN));
        assert_eq!(bit("sys_admin"), Some(SYS_ADMIN));
        assert_eq!(bit("CAP_NONSENSE"), None);
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
    }

    #[test]
    fn names_are_the_inverse_of_bit() {
        assert_eq!(names(KNOWN).filter_map(|name| bit(&name)).fold(0, |all, one| all | one), KNOWN);
    }
}
