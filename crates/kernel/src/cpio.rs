//! Initramfs archives: cpio in the `newc` form, the one the kernel unpacks.

use std::collections::BTreeSet;

/// The largest file: eight hexadecimal digits.
const LARGEST: usize = u32::MAX as usize;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
    Device(u32, u32),
}

/// An archive that grows in memory.
///
/// Directories on the way to an entry are made when they are first needed, owned by root, with mode 0755.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

/// An entry that cannot be put into an archive.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpioError {
    /// Absolute, empty, or with `.` or `..` in it.
    #[error("{0:?} is no path inside an archive")]
    Path(String),
    /// The format ends at four gigabytes.
    #[error("{0} is too large for an initramfs")]
    Size(String),
}

impl Archive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, and those on the way to it.
    ///
    /// # Errors
    /// A path that is none.
    pub fn directory(&mut self, path: &str) -> Result<(), CpioError> {
        check(path)?;
        self.parents(&format!("{path}/x"));
        Ok(())
    }

    /// Adds a file with permission bits `mode`.
    ///
    /// # Errors
    /// A path that is none; content of four gigabytes and more.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), CpioError> {
        check(path)?;
        if content.len() >= LARGEST {
            return Err(CpioError::Size(path.to_owned()));
        }
        self.parents(path);
        self.entry(path, Kind::File, mode, content);
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// A path that is none.
    pub fn link(&mut self, path: &str, to: &str) -> Result<(), CpioError> {
        check(path)?;
        self.parents(path);
        self.entry(path, Kind::Link, 0o777, to.as_bytes());
        Ok(())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// A path that is none.
    pub fn device(&mut self, path: &str, mode: u32, (major, minor): (u32, u32)) -> Result<(), CpioError> {
        check(path)?;
        self.parents(path);
        self.entry(path, Kind::Device(major, minor), mode, b"");
        Ok(())
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX;
        self.header("TRAILER!!!", 0, 0, (0, 0));
        self.pad();
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            if self.directories.insert(path[..at].to_owned()) {
                self.entry(&path[..at], Kind::Directory, 0o755, b"");
            }
        }
    }

    fn entry(&mut self, path: &str, kind: Kind, mode: u32, content: &[u8]) {
        let (kind, device) = match kind {
            Kind::Directory => (0o040_000, (0, 0)),
            Kind::File => (0o100_000, (0, 0)),
            Kind::Link => (0o120_000, (0, 0)),
            Kind::Device(major, minor) => (0o020_000, (major, minor)),
        };
        self.header(path, kind | (mode & 0o7777), content.len(), device);
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, device: (u32, u32)) {
        use std::fmt::Write as _;
        self.inode = self.inode.wrapping_add(1);
        let links: u32 = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let mut header = String::with_capacity(110);
        header.push_str("070701");
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let length = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        for field in [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, length, 0] {
            // Writing to a string cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn check(path: &str) -> Result<(), CpioError> {
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if path.split('/').any(bad) || path == "TRAILER!!!" {
        Err(CpioError::Path(path.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an archive as the kernel does: path, mode, content.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, length) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + length - 1]).unwrap().to_owned();
            let start = (110 + length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), start);
                return entries;
            }
            entries.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        for path in ["", "/init", "a//b", "../a", "a/./b", "a/", "a\0b", "TRAILER!!!"] {
            assert!(Archive::new().file(path, 0o644, b"").is_err(), "{path:?}");
        }
    }

    #[test]
    fn devices_and_links_carry_what_they_are() {
        let mut archive = Archive::new();
        archive.device("dev/console", 0o600, (5, 1)).unwrap();
        archive.link("bin/sh", "busybox").unwrap();
        let entries = read(&archive.finish());
        let brief: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        let expected =
            [("dev", 0o040_755), ("dev/console", 0o020_600), ("bin", 0o040_755), ("bin/sh", 0o120_777)];
        assert_eq!(brief, expected);
        assert_eq!(entries[3].2, b"busybox");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_with_each_directory_before_what_is_in_it(
            files in proptest::collection::btree_map(
                "f[a-z]{0,5}(/g[a-z.-]{0,9}){0,3}x",
                (0_u32..0o10000, proptest::collection::vec(any::<u8>(), 0..50)),
                0..20,
            )
        ) {
            let mut archive = Archive::new();
            for (path, (mode, content)) in &files {
                archive.file(path, *mode, content).unwrap();
            }
            let mut seen = BTreeSet::new();
            let mut found = std::collections::BTreeMap::new();
            for (path, mode, content) in read(&archive.finish()) {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    prop_assert!(seen.contains(parent), "{parent} comes after {path}");
                }
                if mode & 0o170_000 == 0o040_000 {
                    prop_assert!(seen.insert(path), "a directory comes twice");
                } else {
                    found.insert(path, (mode & 0o7777, content));
                }
            }
            prop_assert_eq!(found, files);
        }
    }
}
