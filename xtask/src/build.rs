//! `cargo xtask build`: `cata`, and beside it its companions, linked statically.
//!
//! One supervisor stays in memory for each container, and a static program maps fewer pages; the guest's first
//! process finds no libraries where it runs, and neither does the engine in a machine. The flag goes to these programs alone, by `cargo rustc`: in
//! RUSTFLAGS it would reach every crate and build script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_tests::cache;
use clap::Args;

use crate::cross;

/// Options of `build`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Options {
    /// Optimised, as it is meant to be used
    #[arg(long)]
    pub(crate) release: bool,
    /// The guest's first process for arm64 too, with Debian's own compiler
    #[arg(long)]
    pub(crate) arm64: bool,
}

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) cata: PathBuf,
    pub(crate) supervisor: PathBuf,
}

/// The programs and their packages.
const PROGRAMS: [(&str, &str); 6] = [
    ("cata", "cata-cli"),
    ("cata-supervisor", "cata-supervisor"),
    ("cata-guest", "cata-guest"),
    ("cata-vmm", "cata-vmm"),
    ("cata-runtime", "cata-oci"),
    ("cata-serve", "cata-api"),
];

/// Builds all programs.
pub(crate) fn run(options: &Options) -> Result<Programs> {
    let profile = if options.release { "release" } else { "dev" };
    programs(profile)?;
    let folder = target().join(if options.release { "release" } else { "debug" });
    if options.arm64 {
        cross::guest(profile, &folder)?;
    }
    Ok(Programs { cata: folder.join("cata"), supervisor: folder.join("cata-supervisor") })
}

/// Builds the static programs.
pub(crate) fn programs(profile: &str) -> Result<()> {
    for (name, package) in PROGRAMS {
        let mut args = vec!["rustc", "--quiet", "--profile", profile, "--package", package, "--bin", name];
        args.extend(["--", "-C", "target-feature=+crt-static"]);
        if name == "cata-guest" {
            // It is unpacked at each boot of a machine.
            args.extend(["-C", "strip=symbols"]);
        }
        cargo(&args)?;
    }
    Ok(())
}

/// Builds the OCI runtime alone.
pub(crate) fn runtime(profile: &str) -> Result<PathBuf> {
    let package = ["--package", "cata-oci", "--bin", "cata-runtime"];
    let mut args = vec!["rustc", "--quiet", "--profile", profile];
    args.extend(package);
    args.extend(["--", "-C", "target-feature=+crt-static"]);
    cargo(&args)?;
    Ok(target().join(profile).join("cata-runtime"))
}

/// Copies `cata` and its companions from `folder` to a folder of their own, where later links of the ordinary
/// way do not reach them.
pub(crate) fn set_aside(folder: &Path) -> Result<Programs> {
    let aside = folder.join("static");
    fs::create_dir_all(&aside).with_context(|| format!("create {}", aside.display()))?;
    let foreign = Some(cross::GUEST).filter(|name| folder.join(name).exists());
    let own = PROGRAMS.map(|(name, _)| name);
    for name in own.into_iter().chain(foreign) {
        // A program that runs cannot be written to, but replaced.
        let (new, place) = (aside.join(format!("{name}.new")), aside.join(name));
        fs::copy(folder.join(name), &new).with_context(|| format!("copy {name}"))?;
        fs::rename(&new, &place).with_context(|| format!("replace {}", place.display()))?;
    }
    Ok(Programs { cata: aside.join("cata"), supervisor: aside.join("cata-supervisor") })
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
