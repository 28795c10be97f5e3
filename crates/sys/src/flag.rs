//! A flag in memory that two processes share: how to wait for somebody where no system call can be relied on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A page that others may map too.
#[derive(Debug)]
pub struct Flag {
    page: *mut AtomicU32,
}

const PAGE: usize = 4096;

impl Flag {
    /// A new flag that is not raised, and the file by which another process opens it.
    ///
    /// # Errors
    /// Those of `memfd_create` and `mmap`.
    pub fn new() -> Result<(Self, OwnedFd), Errno> {
        let file = rustix::fs::memfd_create("flag", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, PAGE as u64)?;
        Ok((Self::open(file.as_fd())?, file))
    }

    /// Somebody else's flag.
    ///
    /// # Errors
    /// That of `mmap`; `EINVAL` for a file that is too short.
    pub fn open(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        if rustix::fs::fstat(file)?.st_size < PAGE as i64 {
            return Err(Errno::INVAL);
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses the place, so that nothing mapped before changes.
        let page = unsafe { rustix::mm::mmap(std::ptr::null_mut(), PAGE, protection, flags, file, 0) }?;
        Ok(Self { page: page.cast() })
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped for as long as this lives, aligned, and only ever used as an atomic word.
        unsafe { &*self.page }
    }

    /// Raises it.
    pub fn raise(&self) {
        self.word().store(1, Ordering::Release);
    }

    /// Waits, without any system call, until it is raised; `false`: it was not, for so long.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.word().load(Ordering::Acquire) == 0 {
            if Instant::now() > end {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and nobody has a reference into it any more.
        let _ = unsafe { rustix::mm::munmap(self.page.cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_seen_by_who_else_has_it() {
        let (ours, file) = Flag::new().expect("a flag");
        let theirs = Flag::open(file.as_fd()).expect("the same flag");
        assert!(!ours.wait(Duration::ZERO));
        theirs.raise();
        assert!(ours.wait(Duration::ZERO));
    }
}
