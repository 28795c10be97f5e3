//! `cargo xtask build`: `cata`, and beside it the supervisor, linked statically.
//!
//! One supervisor stays in memory for each container, and a static program maps fewer pages. The flag goes to
//! that one program by `cargo rustc`: in RUSTFLAGS it would reach every crate and build script.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_tests::cache;
use clap::Args;

/// Options of `build`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Options {
    /// Optimised, as it is meant to be used
    #[arg(long)]
    pub(crate) release: bool,
}

/// The two programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) cata: PathBuf,
    pub(crate) supervisor: PathBuf,
}

/// Builds both programs.
pub(crate) fn run(options: &Options) -> Result<Programs> {
    let profile = if options.release { "release" } else { "dev" };
    cargo(&["build", "--quiet", "--package", "cata-cli", "--profile", profile])?;
    supervisor(profile)?;
    let folder = target().join(if options.release { "release" } else { "debug" });
    Ok(Programs { cata: folder.join("cata"), supervisor: folder.join("cata-supervisor") })
}

/// Builds the static supervisor.
pub(crate) fn supervisor(profile: &str) -> Result<()> {
    let package = ["--package", "cata-supervisor", "--bin", "cata-supervisor"];
    let mut args = vec!["rustc", "--quiet", "--profile", profile];
    args.extend(package);
    args.extend(["--", "-C", "target-feature=+crt-static"]);
    cargo(&args)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache::repository().join("target"), PathBuf::from)
}

/// Runs cargo in the repository.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    println!("$ cargo {}", args.join(" "));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(args).current_dir(cache::repository()).status();
    let status = status.context("run cargo")?;
    ensure!(status.success(), "`cargo {}`: {status}", args.join(" "));
    Ok(())
}
