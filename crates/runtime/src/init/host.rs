//! What is taken from the host because the container's word for it is not good enough.

use std::os::fd::OwnedFd;

use cata_sys::mount::Depth;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;

/// The host's `/proc` and `/dev/null`.
pub(super) struct Host {
    proc: OwnedFd,
    null: OwnedFd,
}

impl Host {
    pub(super) fn open() -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags | OFlags::DIRECTORY, Mode::empty())
            .map_err(Failure::at(Stage::Sysctl, "/proc"))?;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty())
            .map_err(Failure::at(Stage::MaskPath, "/dev/null"))?;
        let device = rustix::fs::fstat(&null).map_err(Failure::at(Stage::MaskPath, "/dev/null"))?.st_rdev;
        if device != rustix::fs::makedev(1, 3) {
            return Err(Failure::at(Stage::MaskPath, "/dev/null")(Errno::NODEV));
        }
        Ok(Self { proc, null })
    }

    /// A detached mount of `/dev/null`, to hide a file behind.
    pub(super) fn null(&self) -> Result<OwnedFd, Errno> {
        use std::os::fd::AsFd;
        cata_sys::mount::clone_fd(self.null.as_fd(), Depth::This)
    }

    /// Parameters belong to the namespaces of who writes them, whichever `/proc` they are written through.
    pub(super) fn write_sysctls(&self, sysctls: &[(String, String)]) -> Result<(), Failure> {
        for (name, value) in sysctls {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let file = rustix::fs::openat2(
                &self.proc,
                format!("sys/{name}"),
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            );
            file.and_then(|file| rustix::io::write(&file, value.as_bytes()).map(drop))
                .map_err(Failure::at(Stage::Sysctl, name.replace('/', ".")))?;
        }
        Ok(())
    }
}
