//! The allocator's memory, for a process that lives long and does little.

/// Gives memory that was freed back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns free memory; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Threads made from now on share one heap. A heap of a thread's own costs address space, and glibc opens a
/// file before it gives some of one back, which a thread without that call would not survive.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that is looked at when a thread allocates for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
