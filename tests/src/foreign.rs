//! What tests of another platform's machines run: an arm64 kernel, and an image of Debian's arm64 packages. Both
//! are made by `cargo xtask test`, once, and kept in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::world::World;

/// Raised when what is kept changes its form.
const FORM: u32 = 1;

/// The directory in the cache: `root/`, an engine root with the kernel; `busybox.tar`.
///
/// # Errors
/// As [`cache::dir`].
pub fn dir() -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("arm64-{FORM}")))
}

/// The emulator for arm64 programs, which needs no files of the machine's.
///
/// # Errors
/// As [`cache::dir`].
pub fn emulator() -> Result<PathBuf> {
    Ok(cache::dir()?.join("qemu-aarch64-static-1"))
}

/// Gives the world the kernel, beside those it has; the image's tar.
///
/// # Errors
/// When they have not been made.
pub fn seed(world: &World) -> Result<PathBuf> {
    let dir = dir()?;
    ensure!(dir.exists(), "nothing has been made for arm64: run `cargo xtask images`");
    let from = dir.join("root/kernels");
    fs::create_dir_all(world.root()).with_context(|| format!("create {}", world.root().display()))?;
    let output = Command::new("cp").arg("-a").arg(&from).arg(world.root()).output().context("run `cp`")?;
    ensure!(output.status.success(), "copy {}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    Ok(dir.join("busybox.tar"))
}
