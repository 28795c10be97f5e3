//! `cargo xtask build`: `cata`, and beside it its companions, linked statically.
//!
//! One supervisor stays in memory for each container, and a static program maps fewer pages; the guest's first
//! process finds no libraries where it runs. The flag goes to these programs alone, by `cargo rustc`: in
//! RUSTFLAGS it would reach every crate and build script.

use std::fs;
use std::path::{Path, PathBuf};
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

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) cata: PathBuf,
    pub(crate) supervisor: PathBuf,
}

/// What stands beside `cata`: program, room, and the package where it has another name.
const COMPANIONS: [(&str, &str, &str); 4] = [
    ("cata-supervisor", "supervisor", "cata-supervisor"),
    ("cata-guest", "guest", "cata-guest"),
    ("cata-vmm", "vmm", "cata-vmm"),
    ("cata-runtime", "oci", "cata-oci"),
];

/// Builds all programs.
pub(crate) fn run(options: &Options) -> Result<Programs> {
    let profile = if options.release { "release" } else { "dev" };
    cargo(&["build", "--quiet", "--package", "cata-cli", "--profile", profile])?;
    companions(profile)?;
    let folder = target().join(if options.release { "release" } else { "debug" });
    Ok(Programs { cata: folder.join("cata"), supervisor: folder.join("cata-supervisor") })
}

/// Builds the static companions.
pub(crate) fn companions(profile: &str) -> Result<()> {
    for (name, package) in companion_programs() {
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

/// Those of the companions that are programs.
fn companion_programs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_program = |name: &str, room: &str| {
        let source = cache::repository().join("crates").join(room).join("src");
        source.join("main.rs").exists() || source.join("bin").join(name).join("main.rs").exists()
    };
    let programs = COMPANIONS.into_iter().filter(move |(name, room, _)| is_program(name, room));
    programs.map(|(name, _, package)| (name, package))
}

/// Copies `cata` and its companions from `folder` to a folder of their own, where later links of the ordinary
/// way do not reach them.
pub(crate) fn set_aside(folder: &Path) -> Result<Programs> {
    let aside = folder.join("static");
    fs::create_dir_all(&aside).with_context(|| format!("create {}", aside.display()))?;
    for name in std::iter::once("cata").chain(companion_programs().map(|(name, _)| name)) {
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
