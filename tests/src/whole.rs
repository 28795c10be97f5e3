//! An image that is a whole system: Debian's kernel with its modules, and busybox as init. Made by
//! `cargo xtask test`, once, and kept in the cache.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::cache;

/// Raised when what is in it changes.
const FORM: u32 = 1;

/// The image's tar in the cache.
///
/// # Errors
/// As [`cache::dir`].
pub fn place() -> Result<PathBuf> {
    Ok(cache::dir()?.join("images").join(format!("whole-{FORM}.tar")))
}

/// The same, which must have been made.
///
/// # Errors
/// When it has not been.
pub fn tar() -> Result<PathBuf> {
    let tar = place()?;
    ensure!(tar.exists(), "the image of a whole system has not been made: run `cargo xtask images`");
    Ok(tar)
}
