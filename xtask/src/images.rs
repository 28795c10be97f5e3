//! `cargo xtask images`: the images that demo, tests and benchmark run, made from Debian's own packages, and
//! the kernels that they boot.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use cata_tests::cache::{self, Recipe};
use cata_tests::kernel;

/// Makes every image that is not in the cache.
pub(crate) fn run() -> Result<()> {
    make(&cache::IMAGES)
}

/// Makes these images unless they are in the cache.
pub(crate) fn make(names: &[&str]) -> Result<()> {
    for name in names {
        let recipe = Recipe::of(name);
        if !recipe.tar()?.exists() {
            ensure!(rustix::process::geteuid().is_root(), "making the image `{name}` needs root");
            println!("making the image `{name}`");
        }
        let started = Instant::now();
        let (tar, made_now) = recipe.make()?;
        if made_now {
            println!("made {} in {:.0} s", tar.display(), started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// Takes the kernels with this `cata` that are not in the cache.
pub(crate) fn kernels(cata: &Path) -> Result<()> {
    let started = Instant::now();
    let (root, made_now) = kernel::make(cata)?;
    if made_now {
        println!("took kernels to {} in {:.0} s", root.display(), started.elapsed().as_secs_f64());
    }
    Ok(())
}
