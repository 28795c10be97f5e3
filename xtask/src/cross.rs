//! The guest's first process for arm64, on a machine of another kind.
//!
//! Rust's own installer may not be at hand, and a standard library fits exactly one compiler. So Debian's
//! compiler is used, with its standard library for arm64: packages that are downloaded and unpacked into the
//! cache, never installed. The linker and C library are Debian's cross packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_kernel::image::Arch;
use cata_kernel::package;
use cata_tests::cache;

use crate::build::target;
use crate::deps;

/// The program's name, beside `cata`.
pub(crate) const GUEST: &str = "cata-guest-arm64";

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Raised when what is kept changes its form.
const FORM: u32 = 1;

/// Builds the program into `folder`.
pub(crate) fn guest(profile: &str, folder: &Path) -> Result<()> {
    ensure!(Arch::NATIVE == Arch::Amd64, "on arm64 the guest's first process is an ordinary build");
    deps::run(deps::Set::Cross)?;
    let usr = toolchain()?.join("usr");
    let cross = target().join("cross");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["rustc", "--quiet", "--profile", profile, "--target", TARGET, "--target-dir"]).arg(&cross);
    cargo.args(["--package", "cata-guest", "--bin", "cata-guest", "--", "-C", "target-feature=+crt-static"]);
    // It is unpacked at each boot of a machine.
    cargo.args(["-C", "strip=symbols"]);
    cargo.env("RUSTC", usr.join("bin/rustc"));
    cargo.env("LD_LIBRARY_PATH", usr.join("lib/x86_64-linux-gnu"));
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    // Those of the machine's own build are for its own compiler.
    for variable in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(variable);
    }
    println!("$ cargo rustc --target {TARGET} --package cata-guest");
    let status = cargo.current_dir(cache::repository()).status().context("run cargo")?;
    ensure!(status.success(), "cata-guest for arm64: {status}");
    let made = if profile == "release" { "release" } else { "debug" };
    let made = cross.join(TARGET).join(made).join("cata-guest");
    // Beside programs that may run at this moment.
    let new = folder.join(format!("{GUEST}.new"));
    fs::copy(&made, &new).with_context(|| format!("copy {}", made.display()))?;
    fs::rename(&new, folder.join(GUEST)).with_context(|| format!("rename {}", new.display()))
}

/// Debian's compiler in the cache.
fn toolchain() -> Result<PathBuf> {
    let _lock = cache::lock("cross")?;
    let dir = cache::dir()?.join(format!("cross-{FORM}"));
    if dir.exists() {
        return Ok(dir.join("root"));
    }
    println!("taking Debian's compiler for arm64");
    let partial = dir.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let (debs, root) = (partial.join("debs"), partial.join("root"));
    for kind in ["amd64", "arm64"] {
        let dir = debs.join(kind);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    // What the compiler is made of: its libraries have its version in their names.
    let mut wanted = vec!["rustc-web".to_owned()];
    let mut next = 0;
    while let Some(package) = wanted.get(next).cloned() {
        let (deb, depends) = package::download(&package, Arch::Amd64, &debs.join("amd64"))?;
        package::extract(&deb, &root)?;
        let parts = ["libstd-rust-web", "libllvm"];
        let part = |name: &String| parts.iter().any(|part| name.starts_with(part)) && !wanted.contains(name);
        let further: Vec<String> = depends.into_iter().filter(part).collect();
        wanted.extend(further);
        next += 1;
    }
    let (deb, _) = package::download("libstd-rust-web-dev", Arch::Arm64, &debs.join("arm64"))?;
    package::extract(&deb, &root)?;
    fs::remove_dir_all(&debs).with_context(|| format!("remove {}", debs.display()))?;
    fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))?;
    Ok(dir.join("root"))
}
