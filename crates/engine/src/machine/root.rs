//! What a machine's own files are when no image is named: busybox, and what the engine in it needs.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use cata_image::ImportRequest;
use cata_spec::Reference;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// The image that it becomes, named by what is in it.
const REPOSITORY: &str = "catamaran/machine";
const BUSYBOX: &str = "/bin/busybox";
/// The programs of busybox that people look for in a machine.
const APPLETS: &[&str] = &[
    "ash", "awk", "cat", "chmod", "chown", "clear", "cp", "cut", "date", "dd", "df", "dmesg", "du", "echo",
    "env", "false", "find", "free", "grep", "head", "hostname", "id", "ip", "kill", "less", "ln", "ls",
    "mkdir", "mount", "mv", "nc", "nslookup", "ping", "ps", "pwd", "rm", "rmdir", "sed", "sh", "sleep",
    "sort", "stat", "stty", "sync", "tail", "tar", "test", "top", "touch", "true", "umount", "uname",
    "uptime", "vi", "wc", "wget", "which",
];

/// A program for a machine finds no libraries there.
pub(super) fn check_static(program: &Path) -> Result<()> {
    crate::kernel::check_static(program, &fs::read(program).map_err(Error::file("read", program))?)
}

impl Engine {
    /// The image of machines, made when it is not there.
    pub(super) fn machine_image(&self) -> Result<String> {
        let busybox = Path::new(BUSYBOX);
        if !busybox.exists() {
            return Err(Error::Unsupported {
                what: format!("a machine's own files are made of {BUSYBOX}, which is not installed"),
                hint: "install Debian's package busybox-static, or name an image with --image".to_owned(),
            });
        }
        check_static(busybox)?;
        let bytes = fs::read(busybox).map_err(Error::file("read", busybox))?;
        let archive = archive(&bytes).map_err(Error::file("pack", busybox))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &archive);
        let tag: String = digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{REPOSITORY}:{tag}");
        if self.image(&name).is_ok() {
            return Ok(name);
        }
        let reference = Reference::parse(&name).map_err(|error| Error::Invalid(error.to_string()))?;
        let request = ImportRequest {
            reference: Some(reference),
            changes: Vec::new(),
            message: Some("what machines start from".to_owned()),
            platform: None,
        };
        self.image_import(&mut archive.as_slice().take(u64::MAX), &request)?;
        Ok(name)
    }
}

/// PURE: a root file system as a tar archive, always the same bytes.
fn archive(busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    let directories =
        ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/local", "usr/local/bin"];
    for path in directories.into_iter().chain(["var", "var/lib", "var/lib/catamaran"]) {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, std::io::empty())?;
    }
    let size = u64::try_from(busybox.len()).unwrap_or(u64::MAX);
    tar.append_data(&mut header(tar::EntryType::Regular, 0o755, size), "bin/busybox", busybox)?;
    for applet in APPLETS {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox")?;
    }
    for (path, text) in [("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")] {
        let size = u64::try_from(text.len()).unwrap_or(0);
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, text.as_bytes())?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::archive;

    #[test]
    fn archive_has_a_shell_and_is_always_the_same() {
        let bytes = archive(b"busybox").unwrap();
        assert_eq!(bytes, archive(b"busybox").unwrap());
        let mut tar = tar::Archive::new(bytes.as_slice());
        let links: Vec<_> = tar
            .entries()
            .unwrap()
            .flatten()
            .filter_map(|e| e.link_name().ok()??.to_str().map(str::to_owned))
            .collect();
        assert!(links.len() > 40 && links.iter().all(|link| link == "busybox"));
    }
}
