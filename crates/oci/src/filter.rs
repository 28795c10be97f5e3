//! Compiled system call filters, kept by the digest of their profile.

use std::fs;
use std::path::Path;

use cata_runtime::seccomp::{self, Program};
use cata_spec::runtime::LinuxSeccomp;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Part of the digest: a filter made by another compiler is another filter.
const COMPILER: &str = env!("CARGO_PKG_VERSION");

/// The filter of a profile. The cache is a directory that only its owner can write; without one, or with
/// something else in it, the profile is compiled.
pub(crate) fn of(profile: &LinuxSeccomp, cache: &Path) -> Result<Program> {
    let key = key(profile);
    if let Some(known) = key.as_deref().and_then(|key| look_up(&cache.join(key))) {
        return Ok(known);
    }
    let program = seccomp::compile(profile).map_err(|e| Error::chain("seccomp", &e))?.program;
    if let Some(key) = key {
        // Only speed depends on it.
        let _ = keep(cache, &key, &program);
    }
    Ok(program)
}

fn key(profile: &LinuxSeccomp) -> Option<String> {
    let mut digest = Sha256::new();
    digest.update(COMPILER);
    digest.update(std::env::consts::ARCH);
    digest.update(serde_json::to_vec(profile).ok()?);
    Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn look_up(path: &Path) -> Option<Program> {
    Program::from_text(fs::read_to_string(path).ok()?.trim_end())
}

fn keep(cache: &Path, key: &str, program: &Program) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(cache);
    made.map_err(Error::io("create", cache))?;
    let (path, new) = (cache.join(key), cache.join(format!(".{key}.{}", std::process::id())));
    crate::store::write(&new, program.to_text().as_bytes())?;
    fs::rename(&new, &path).map_err(Error::io("write", &path))
}
