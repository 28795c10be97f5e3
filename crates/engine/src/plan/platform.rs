//! PURE: what runs an image of another platform: a machine with such processors, or in a container whatever
//! the kernel is told to start its programs with (`binfmt_misc`).

use cata_kernel::image::Arch;
use cata_spec::Platform;

use crate::error::{Error, Result};

/// The processors that a machine for an image has.
///
/// # Errors
/// [`Error::Unsupported`] for a platform that no machine has.
pub fn machine(platform: &str) -> Result<Arch> {
    let parsed = Platform::parse(platform).ok().filter(|platform| platform.os == "linux");
    let arch = parsed.and_then(|platform| match platform.architecture.as_str() {
        // Its kernel runs these too.
        "386" => Some(Arch::Amd64),
        other => Arch::parse(other),
    });
    arch.ok_or_else(|| Error::Unsupported {
        what: format!("the image is for {platform}, and virtual machines are linux/amd64 or linux/arm64"),
        hint: "choose one of these with --platform, if the image has it".to_owned(),
    })
}

/// Checks that a container of this image can run here. `formats` are the files of `binfmt_misc`, which are
/// only read where they matter.
///
/// # Errors
/// [`Error::Unsupported`], with the package that helps.
pub fn container(platform: &str, host: &Platform, formats: impl FnOnce() -> Vec<String>) -> Result<()> {
    let Ok(image) = Platform::parse(platform) else { return Ok(()) };
    let native = match (host.architecture.as_str(), image.architecture.as_str()) {
        ("amd64", "386") | ("arm64", "arm") => true,
        (host, image) => host == image,
    };
    if image.os == "linux" && native {
        return Ok(());
    }
    let Some(header) = header(&image).filter(|_| image.os == "linux") else {
        return Err(Error::Unsupported {
            what: format!("the image is for {platform}, whose programs nothing runs on {host}"),
            hint: "choose another with --platform, if the image has it".to_owned(),
        });
    };
    if formats().iter().any(|format| takes(format, &header).is_some_and(|takes| takes)) {
        return Ok(());
    }
    let machine = if machine(platform).is_ok() { ", or use --isolation vm" } else { "" };
    Err(Error::Unsupported {
        what: format!(
            "the image is for {platform}, this host is {host}, and no emulator for {} is registered",
            image.architecture
        ),
        hint: format!("install Debian's package qemu-user-static{machine}"),
    })
}

/// How a program for a platform begins: ELF, up to the machine.
fn header(platform: &Platform) -> Option<[u8; 20]> {
    // Bits, order of bytes, number of the machine.
    let (class, big, machine): (u8, bool, u16) = match platform.architecture.as_str() {
        "386" => (1, false, 3),
        "amd64" => (2, false, 62),
        "arm" => (1, false, 40),
        "arm64" => (2, false, 183),
        "loong64" => (2, false, 258),
        "mips64le" => (2, false, 8),
        "ppc64le" => (2, false, 21),
        "riscv64" => (2, false, 243),
        "s390x" => (2, true, 22),
        _ => return None,
    };
    let order = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut header = [0; 20];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, if big { 2 } else { 1 }, 1]);
    header[16..18].copy_from_slice(&order(2));
    header[18..].copy_from_slice(&order(machine));
    Some(header)
}

/// Whether an entry of `binfmt_misc` is for programs that begin so; `None`: it is no entry.
fn takes(format: &str, header: &[u8]) -> Option<bool> {
    let mut lines = format.lines();
    if lines.next()? != "enabled" {
        return None;
    }
    let field = |name: &str| format.lines().find_map(|line| line.strip_prefix(name));
    let offset: usize = field("offset ")?.parse().ok()?;
    let magic = bytes(field("magic ")?)?;
    let mask = match field("mask ") {
        Some(mask) => bytes(mask)?,
        None => vec![0xff; magic.len()],
    };
    let there = header.get(offset..offset.checked_add(magic.len())?)?;
    let same = |((there, magic), mask): ((&u8, &u8), &u8)| there & mask == magic & mask;
    Some(there.iter().zip(&magic).zip(&mask).all(same))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.trim().as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn said(platform: &str, formats: &[&str]) -> String {
        let host = Platform::parse("linux/amd64").unwrap();
        let formats: Vec<String> = formats.iter().map(|format| (*format).to_owned()).collect();
        container(platform, &host, || formats)
            .map_or_else(|e| format!("{e}; {}", e.hint().unwrap()), |()| "ok".into())
    }

    #[test]
    fn container_of_another_platform_needs_a_registered_emulator() {
        assert_eq!(said("linux/amd64", &[]), "ok");
        assert_eq!(said("linux/386", &[]), "ok");
        assert_eq!(said("linux/arm64/v8", &["enabled\n", ARM64]), "ok");
        let none = "the image is for linux/arm64, this host is linux/amd64, and no emulator for arm64 is \
            registered; install Debian's package qemu-user-static, or use --isolation vm";
        let disabled = ARM64.replace("enabled", "disabled");
        let other = ARM64.replace("b700", "f300");
        for formats in [&[][..], &[&*disabled], &[&*other], &["enabled"], &["enabled\noffset 0\nmagic 7\n"]] {
            assert_eq!(said("linux/arm64", formats), none);
        }
        assert!(said("linux/riscv64", &[ARM64]).ends_with("package qemu-user-static"));
        assert!(
            said("windows/amd64", &[ARM64]).starts_with("the image is for windows/amd64, whose programs")
        );
    }

    #[test]
    fn machine_has_the_processors_of_the_image() {
        assert_eq!(machine("linux/arm64/v8").unwrap(), Arch::Arm64);
        assert_eq!(machine("linux/386").unwrap(), Arch::Amd64);
        for platform in ["linux/s390x", "windows/amd64", ""] {
            assert!(machine(platform).unwrap_err().to_string().contains("linux/amd64 or linux/arm64"));
        }
    }
}
