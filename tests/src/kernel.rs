//! The kernels that tests boot: the distribution's, taken once by the `cata` under test and kept in the
//! cache; and kernels made by hand, as no distribution has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::world::World;

/// Raised when `cata` keeps kernels in another form.
const FORM: u32 = 2;

/// The engine root in the cache that holds the kernels.
///
/// # Errors
/// As [`cache::dir`].
pub fn root() -> Result<PathBuf> {
    Ok(cache::dir()?.join("kernels").join(format!("root-{FORM}")))
}

/// Takes the distribution's kernel with this `cata`, unless that was done before. Returns the engine root
/// that holds it, and whether it was made now.
///
/// # Errors
/// When it cannot be downloaded.
pub fn make(cata: &Path) -> Result<(PathBuf, bool)> {
    let _lock = cache::lock("kernels")?;
    let root = root()?;
    if root.exists() {
        return Ok((root, false));
    }
    let folder = cache::dir()?.join("kernels");
    let partial = folder.join("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = Command::new(cata);
    command.args(["kernel", "install", "--quiet"]).env("CATA_ROOT", &partial);
    command.env("CATA_STATE", folder.join("state"));
    let output = command.output().context("run cata kernel install")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cata kernel install: {}\n{said}", output.status);
    // Roots of earlier forms only fill the disk; the last one may be in use by another checkout's tests.
    let last = folder.join(format!("root-{}", FORM - 1));
    for entry in fs::read_dir(&folder)?.flatten().filter(|entry| ![&partial, &last].contains(&&entry.path()))
    {
        let _ = fs::remove_dir_all(entry.path());
    }
    fs::rename(&partial, &root).with_context(|| format!("rename {}", partial.display()))?;
    Ok((root, true))
}

/// Gives the world the kernels of the cache.
///
/// # Errors
/// When they have not been taken.
pub fn seed(world: &World) -> Result<()> {
    let from = root()?.join("kernels");
    ensure!(from.exists(), "no kernel has been taken: run `cargo xtask images`");
    fs::create_dir_all(world.root()).with_context(|| format!("create {}", world.root().display()))?;
    // Files of a kernel never change; linking fails across file systems.
    for options in [["-a", "--link"], ["-a", "--reflink=auto"]] {
        let to = world.root();
        let output = Command::new("cp").args(options).arg(&from).arg(&to).output().context("run `cp`")?;
        if output.status.success() {
            return Ok(());
        }
        let _ = fs::remove_dir_all(to.join("kernels"));
    }
    anyhow::bail!("cannot copy {} to {}", from.display(), world.root().display())
}

/// A file that passes for a kernel of this release: an ELF header, the note that names the PVH entry, and
/// what drivers register.
#[must_use]
pub fn by_hand(release: &str, drivers: &[&str]) -> Vec<u8> {
    let mut file = vec![0_u8; 64 + 56];
    file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    // For x86-64; one program header, of 56 bytes, behind this one.
    file[18] = 62;
    file[0x20] = 64;
    file[0x36] = 56;
    file[0x38] = 1;
    // It is about notes: 20 bytes at 120.
    file[64] = 4;
    file[64 + 8] = 120;
    file[64 + 32] = 20;
    // Four letters of name, four bytes of content, the kind.
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0\0\0\0\0");
    file.extend(format!("Linux version {release} (nobody) #1\n\0").as_bytes());
    for driver in drivers {
        file.extend(driver.as_bytes());
        file.push(0);
    }
    file
}
