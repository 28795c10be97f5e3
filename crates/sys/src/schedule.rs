//! How the kernel schedules the calling thread, where its memory comes from, and which system it believes to
//! be on.

use rustix::io::Errno;

/// What `sched_setattr` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Of the ordinary policies.
    pub nice: i32,
    /// Of the real-time policies.
    pub priority: u32,
    /// Nanoseconds, of the deadline policy.
    pub runtime: u64,
    /// See `runtime`.
    pub deadline: u64,
    /// See `runtime`.
    pub period: u64,
}

/// `struct sched_attr` of its first version, which every kernel knows.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn result(value: libc::c_long) -> Result<(), Errno> {
    if value >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Sets policy and priority.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, `EINVAL` for what does not fit together.
pub fn set_scheduler(attributes: &Attributes) -> Result<(), Errno> {
    let kernel = SchedAttr {
        size: 48,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: `kernel` has the layout of the kernel's structure and says its size; it is only read.
    result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const kernel, 0) })
}

const _: () = assert!(size_of::<SchedAttr>() == 48);

/// Sets the I/O class (1 real-time, 2 best effort, 3 idle) and the level in it (0 to 7).
///
/// # Errors
/// `EPERM` for a class that needs rights, `EINVAL`.
pub fn set_io_priority(class: u16, level: u16) -> Result<(), Errno> {
    let value = libc::c_long::from(class) << 13 | libc::c_long::from(level);
    // SAFETY: it takes numbers only: 1 is "this process", 0 the caller.
    result(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) })
}

/// Sets the execution domain: `PER_*` and its flags.
///
/// # Errors
/// `EINVAL`.
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: it takes a number only.
    result(libc::c_long::from(unsafe { libc::personality(libc::c_ulong::from(persona)) }))
}

/// Sets where memory comes from: an `MPOL_*` mode with its flags, and nodes as bits.
///
/// # Errors
/// `EINVAL` for nodes that do not exist, `ENOSYS` on kernels without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let list = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `list` is null or points to as many bits as are named (the kernel reads one less).
    result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, list, bits) })
}
