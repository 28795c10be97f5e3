//! A kernel file of any usual form → what a monitor can enter.
//!
//! On amd64 that is the ELF `vmlinux`: entered by PVH it needs no decompression, which is a second of every
//! boot where the processor is emulated. On arm64 it is the plain `Image`.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::compression::{self, Format, LIMIT};
use crate::elf::{self, Elf};
use crate::error::{Error, Result};

/// The processor a kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// That of this program.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// OCI's and Debian's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// From OCI's and Debian's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Amd64, Self::Arm64].into_iter().find(|arch| arch.as_str() == text)
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kernel that can be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// For which processor.
    pub arch: Arch,
    /// ELF, or arm64's `Image`.
    pub bytes: Vec<u8>,
    /// `6.12.9-cloud-amd64`, where the file says it.
    pub version: Option<String>,
}

/// A file that somebody else made: nothing but a regular one, of a size that a kernel or a module can have, is read.
///
/// # Errors
/// A file operation.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    // A pipe of that name would keep who opens it waiting.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(Error::file("open", path))?;
    let facts = file.metadata().map_err(Error::file("look at", path))?;
    if !facts.is_file() || facts.len() > LIMIT {
        let why = "it is not a file, or longer than any kernel".to_owned();
        return Err(Error::Damaged { what: path.display().to_string(), why });
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    Ok(bytes)
}

/// Takes a kernel out of `file`, which `what` names in errors.
///
/// # Errors
/// Not a kernel, one that is damaged, for another processor, without PVH, or compressed in an unknown way.
pub fn open(file: Vec<u8>, what: &str) -> Result<Kernel> {
    let file = compression::plain(file, what)?;
    let arm = |bytes: Vec<u8>| Kernel { arch: Arch::Arm64, version: version(&bytes), bytes };
    if let Some(payload) = zboot(&file, what)? {
        let bytes = compression::plain(payload.to_vec(), what)?;
        return if is_arm_image(&bytes) { Ok(arm(bytes)) } else { Err(Error::NotAKernel(what.to_owned())) };
    }
    if is_arm_image(&file) {
        return Ok(arm(file));
    }
    let vmlinux = match bz_payload(&file, what)? {
        Some(payload) => bz_unpack(payload, what)?,
        None => file,
    };
    let Some(elf) = Elf::parse(&vmlinux) else { return Err(Error::NotAKernel(what.to_owned())) };
    match elf.machine() {
        elf::X86_64 => {}
        machine => {
            let machine = match machine {
                elf::AARCH64 => "arm64 (as ELF: give its Image)".to_owned(),
                243 => "riscv".to_owned(),
                other => format!("ELF machine {other}"),
            };
            return Err(Error::Machine { what: what.to_owned(), machine });
        }
    }
    let version = version(&vmlinux);
    if version.is_none() {
        // Any other program is ELF too.
        return Err(Error::NotAKernel(what.to_owned()));
    }
    if !elf.has_pvh() {
        return Err(Error::NoPvh(what.to_owned()));
    }
    Ok(Kernel { arch: Arch::Amd64, version, bytes: vmlinux })
}

/// `ARM\x64` where arm64's boot protocol wants it.
fn is_arm_image(data: &[u8]) -> bool {
    data.get(0x38..0x3c) == Some(b"ARM\x64")
}

/// The payload of an EFI program that unpacks itself.
fn zboot<'a>(data: &'a [u8], what: &str) -> Result<Option<&'a [u8]>> {
    if data.get(..2) != Some(b"MZ") || data.get(4..8) != Some(b"zimg") {
        return Ok(None);
    }
    let (start, size) = (u32_at(data, 8).unwrap_or(0), u32_at(data, 12).unwrap_or(0));
    let payload = range(data, start, size);
    payload.map(Some).ok_or_else(|| damaged(what, "its payload is cut short"))
}

/// The compressed kernel inside a bzImage; `None`: it is no bzImage.
fn bz_payload<'a>(data: &'a [u8], what: &str) -> Result<Option<&'a [u8]>> {
    if data.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let protocol = u16::from_le_bytes([data[0x206], data.get(0x207).copied().unwrap_or(0)]);
    if protocol < 0x0208 {
        return Err(damaged(what, "its boot protocol is older than 2.08"));
    }
    // Zero means four, for very old loaders.
    let sectors = match data[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let inner = u32_at(data, 0x248).zip(u32_at(data, 0x24c));
    let payload = inner.and_then(|(start, size)| range(data, start.checked_add((sectors + 1) * 512)?, size));
    payload.map(Some).ok_or_else(|| damaged(what, "its payload is cut short"))
}

fn bz_unpack(payload: &[u8], what: &str) -> Result<Vec<u8>> {
    if payload.starts_with(b"\x7fELF") {
        return Ok(payload.to_vec());
    }
    let format = Format::detect(payload).ok_or_else(|| damaged(what, "its payload has no known form"))?;
    // All but gzip, which has it built in, are followed by the unpacked size.
    let payload = match format {
        Format::Gzip => payload,
        _ => &payload[..payload.len().saturating_sub(4)],
    };
    compression::unpack(format, payload, what)
}

/// What follows `Linux version ` in the kernel's own banner.
fn version(kernel: &[u8]) -> Option<String> {
    let mut rest = kernel;
    while let Some(at) = find(rest, b"Linux version ") {
        rest = &rest[at + 14..];
        let end = rest.iter().take(128).position(|byte| matches!(byte, b' ' | b'\n' | 0))?;
        let text = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        // The format string of the same banner comes by too.
        if text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains('/') {
            return Some(text.to_owned());
        }
    }
    None
}

/// Where `needle` begins in `haystack`.
#[must_use]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, others) = needle.split_first()?;
    let mut start = 0;
    while let Some(at) = haystack.get(start..)?.iter().position(|byte| byte == first) {
        start += at + 1;
        if haystack.get(start..)?.starts_with(others) {
            return Some(start - 1);
        }
    }
    None
}

fn u32_at(data: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?) as usize)
}

fn range(data: &[u8], start: usize, size: usize) -> Option<&[u8]> {
    data.get(start..start.checked_add(size)?).filter(|part| !part.is_empty())
}

fn damaged(what: &str, why: &str) -> Error {
    Error::Damaged { what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bzImage around `payload`.
    fn bz(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&0_u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        file.extend(payload);
        file
    }

    #[test]
    fn open_other_files_says_what_is_wrong() {
        let said = |file: &[u8]| open(file.to_vec(), "f").unwrap_err().to_string();
        assert_eq!(said(b""), "f is not a kernel: neither ELF, a bzImage nor an arm64 Image");
        assert_eq!(said(b"#!/bin/sh\n"), "f is not a kernel: neither ELF, a bzImage nor an arm64 Image");
        assert_eq!(said(&bz(b"BZh91AY")), "f is compressed with bzip2, which is not supported");
        assert_eq!(said(&bz(b"")), "f is damaged: its payload is cut short");
        let whole = bz(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5]);
        assert_eq!(said(&whole[..whole.len() - 1]), "f is damaged: its payload is cut short");
        let mut program = vec![0; 128];
        program[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        program[18] = 62;
        assert_eq!(said(&program), "f is not a kernel: neither ELF, a bzImage nor an arm64 Image");
        program[18] = 243;
        assert_eq!(said(&program), "f is a kernel for riscv, and only amd64 and arm64 can be booted");
        program[18] = 62;
        program.extend(b"Linux version 6.9.1 (x)");
        assert_eq!(said(&program), "f cannot be booted directly: it was built without PVH (CONFIG_PVH)");
    }

    #[test]
    fn open_arm64_image_plain_and_packed_is_the_image() {
        let mut image = vec![0; 256];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image.extend(b"%s version %s\0Linux version 6.1.0-9-arm64 (debian)\n");
        let kernel = open(image.clone(), "Image").unwrap();
        assert_eq!((kernel.arch, kernel.version.as_deref()), (Arch::Arm64, Some("6.1.0-9-arm64")));
        let packed = zstd::stream::encode_all(&*image, 1).unwrap();
        assert_eq!(open(packed.clone(), "Image.zst").unwrap().bytes, image);
        let mut zboot = vec![0; 64];
        zboot[..2].copy_from_slice(b"MZ");
        zboot[4..8].copy_from_slice(b"zimg");
        zboot[8..12].copy_from_slice(&64_u32.to_le_bytes());
        zboot[12..16].copy_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        zboot.extend(&packed);
        assert_eq!(open(zboot, "vmlinuz.efi").unwrap().bytes, image);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut data in proptest::collection::vec(any::<u8>(), 0..1200), form in 0..4_u8
        ) {
            let mut stamp = |at: usize, text: &[u8]| if data.len() > at + text.len() {
                data[at..at + text.len()].copy_from_slice(text);
            };
            match form {
                0 => stamp(0x202, b"HdrS\x0f\x02"),
                1 => { stamp(0, b"MZ"); stamp(4, b"zimg"); }
                2 => stamp(0, &[0x7f, b'E', b'L', b'F', 2, 1]),
                _ => {}
            }
            let _ = open(data, "f");
        }
    }
}
