//! Where a file system puts what is made in a directory.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// Says that the directories made in this one have nothing to do with each other, as those of `/home` do. ext4 then puts each
/// of them in a part of the disk of its own, where few others are. Elsewhere it looks for a free inode among all
/// those that were given back lately around the parent, one by one and for each file again: it does not take these for minutes.
///
/// It changes nothing that can be seen; file systems that do not know the wish say so.
///
/// # Errors
/// Those of `FS_IOC_SETFLAGS`: `ENOTTY` or `EOPNOTSUPP` where there is no such thing.
pub fn spread(directory: impl AsFd) -> Result<(), Errno> {
    let flags = ioctl_getflags(&directory)?;
    if flags.contains(IFlags::TOPDIR) {
        return Ok(());
    }
    ioctl_setflags(&directory, flags | IFlags::TOPDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_directory_does_not_hand_it_down() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| std::fs::File::open(path).unwrap();
        let Ok(()) = spread(open(dir.path())) else { return };
        spread(open(dir.path())).unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        assert!(ioctl_getflags(open(dir.path())).unwrap().contains(IFlags::TOPDIR));
        assert!(!ioctl_getflags(open(&below)).unwrap().contains(IFlags::TOPDIR));
    }
}
