//! Reading and writing control files beneath a directory's descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

/// Opens a control file for writing.
pub(super) fn open_write(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes a value in one call, as the kernel wants it.
pub(super) fn write_value(file: impl AsFd, value: &str) -> io::Result<()> {
    rustix::io::write(file, value.as_bytes())?;
    Ok(())
}

/// Opens, writes, closes.
pub(super) fn write(directory: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    write_value(open_write(directory, name)?, value)
}

/// Reads a whole control file.
pub(super) fn read(directory: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Nearly all are shorter than this, and none tells its size beforehand.
    let mut piece = [0_u8; 512];
    let mut bytes = Vec::new();
    loop {
        match rustix::io::read(&file, &mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Opens a directory.
pub(super) fn open_directory(directory: BorrowedFd<'_>, path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, path, flags, Mode::empty())?)
}

/// The names of the cgroups directly below one.
pub(super) fn children(directory: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == rustix::fs::FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The value of a line `key value`.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
