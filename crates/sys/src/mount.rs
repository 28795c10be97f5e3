//! Mounts as descriptors: detached trees, their attributes, and where they are attached.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

pub mod attribute {
    //! Attributes of a mount, and its propagation.
    #![allow(missing_docs)]
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// The mask of the three that follow.
    pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    pub const RELATIME: u64 = libc::MOUNT_ATTR_RELATIME;
    pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    pub const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    pub const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    pub const SLAVE: u64 = libc::MS_SLAVE;
    pub const SHARED: u64 = libc::MS_SHARED;
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
}

/// Whether an operation covers what is mounted below too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Depth {
    This,
    Recursive,
}

/// A file system that is being configured.
#[derive(Debug)]
pub struct Filesystem(OwnedFd);

impl Filesystem {
    /// Starts with the kernel's name of a file system.
    ///
    /// # Errors
    /// `ENODEV` for a file system this kernel does not have.
    pub fn open(fstype: &str) -> Result<Self, Errno> {
        rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map(Self)
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// `EINVAL` for an option the file system does not know; [`Filesystem::complaint`] has its words.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Errno> {
        rustix::mount::fsconfig_set_string(self.0.as_fd(), key, value)
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// As [`Filesystem::set`].
    pub fn flag(&self, key: &str) -> Result<(), Errno> {
        rustix::mount::fsconfig_set_flag(self.0.as_fd(), key)
    }

    /// Makes the superblock and a detached mount of it.
    ///
    /// # Errors
    /// The file system's own.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd, Errno> {
        rustix::mount::fsconfig_create(self.0.as_fd())?;
        let bits = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
        let attributes = MountAttrFlags::from_bits_retain(bits);
        rustix::mount::fsmount(self.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// What the file system itself says is wrong, if it says anything.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let mut text = String::new();
        let mut line = [0u8; 512];
        while let Ok(length @ 1..) = rustix::io::read(&self.0, &mut line) {
            let message = String::from_utf8_lossy(&line[..length]);
            // Each message is one letter of severity, a space, and words.
            let words = message.get(2..).unwrap_or_default().trim();
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(words);
        }
        Some(text).filter(|t| !t.is_empty())
    }
}

/// A detached copy of a path in another mount namespace. For a thread that
/// shares its file system attributes with no other (as after `unshare` of mounts).
///
/// # Errors
/// Those of `setns` and `open_tree`.
pub fn clone_from(namespace: &Path, path: &Path, depth: Depth) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let enter =
        |namespace: &OwnedFd| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
    let own = open(Path::new("/proc/thread-self/ns/mnt"))?;
    enter(&open(namespace)?)?;
    let tree = clone_path(path, depth);
    enter(&own)?;
    tree
}

/// A detached copy of the mount at a path of the host.
///
/// # Errors
/// `ENOENT` and so on.
pub fn clone_path(path: &Path, depth: Depth) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(rustix::fs::CWD, path, clone_flags(depth))
}

/// A detached copy of the mount that an open file or directory is on, rooted at it.
///
/// # Errors
/// `EINVAL` when it is not in this mount namespace.
pub fn clone_fd(fd: BorrowedFd<'_>, depth: Depth) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(fd, "", clone_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// As [`clone_path`], of what is `rest` beneath a directory that others write to: no link leads out of it.
///
/// # Errors
/// There is no such thing; a magic link.
pub fn clone_beneath(directory: &Path, rest: &Path, depth: Depth) -> Result<OwnedFd, Errno> {
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let place = crate::path::Root::open_trusted(directory)?.open(rest, rustix::fs::OFlags::PATH)?;
    clone_fd(place.as_fd(), depth)
}

fn clone_flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::This => flags,
        Depth::Recursive => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Attaches a detached tree over an open file or directory.
///
/// # Errors
/// `ENOTDIR` when one is a directory and the other is not.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags)
}

/// Changes attributes and propagation (0: leave it) of a mount.
///
/// # Errors
/// `EPERM` for an attribute locked by an outer user namespace.
pub fn set_attributes(
    tree: BorrowedFd<'_>,
    depth: Depth,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<(), Errno> {
    change(tree, depth, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 })
}

/// Maps the ids of a detached mount by those of a user namespace, once and for all.
///
/// # Errors
/// `EINVAL` for a file system that cannot be mapped.
pub fn set_idmap(tree: BorrowedFd<'_>, depth: Depth, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    let attr_set = libc::MOUNT_ATTR_IDMAP;
    change(tree, depth, &libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd })
}

fn change(tree: BorrowedFd<'_>, depth: Depth, attributes: &libc::mount_attr) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH
        | match depth {
            Depth::This => 0,
            Depth::Recursive => libc::AT_RECURSIVE,
        };
    // SAFETY: the path is a valid empty C string, `attributes` outlives the call and its size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets the propagation of everything mounted at and below a path.
///
/// # Errors
/// `EINVAL` when the path is no mount.
pub fn set_propagation(path: &Path, propagation: u64, depth: Depth) -> Result<(), Errno> {
    let bits = u32::try_from(propagation).map_err(|_| Errno::INVAL)?;
    let flags = MountPropagationFlags::from_bits_retain(bits)
        | match depth {
            Depth::This => MountPropagationFlags::empty(),
            Depth::Recursive => MountPropagationFlags::REC,
        };
    rustix::mount::mount_change(path, flags)
}

/// The old mount call, for what the new one cannot do on old kernels.
///
/// # Errors
/// The file system's own.
pub fn mount_classic(
    source: &str,
    target: &Path,
    fstype: &str,
    read_only: bool,
    data: &[u8],
) -> Result<(), Errno> {
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, target, fstype, flags, data.as_c_str())
}

/// Makes `root` the root of this mount namespace and takes the old one away with everything on it.
///
/// # Errors
/// `EINVAL` when `root` is not a mount of its own.
pub fn pivot_into(root: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies on top of the new one, and nothing of it may travel when it goes.
    rustix::process::fchdir(&old)?;
    set_propagation(Path::new("."), attribute::PRIVATE, Depth::Recursive)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
