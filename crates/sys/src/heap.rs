//! The allocator's memory, for a process that lives long and does little.

/// Gives memory that was freed back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns free memory; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
