//! `cargo xtask install`: the programs where a distribution would put them, with completions for shells.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build, cross};

/// Options of `install`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Beneath this directory
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Programs that are not optimised, as `cargo xtask test` builds them
    #[arg(long)]
    debug: bool,
    /// The first process of arm64 machines too, built with Debian's own compiler
    #[arg(long)]
    arm64: bool,
}

/// Who types it is beside `cata`; the others are found by it in `libexec`.
const PLACES: [(&str, &str); 6] = [
    ("cata", "bin"),
    ("cata-runtime", "bin"),
    ("cata-supervisor", "libexec/catamaran"),
    ("cata-guest", "libexec/catamaran"),
    ("cata-vmm", "libexec/catamaran"),
    ("cata-serve", "libexec/catamaran"),
];

/// Where shells look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/cata"),
    ("zsh", "share/zsh/site-functions/_cata"),
    ("fish", "share/fish/vendor_completions.d/cata.fish"),
];

/// Builds and installs; what is there of an older version is replaced, also while it runs.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs = build::run(&build::Options { release: !options.debug, arm64: options.arm64 })?;
    let folder = programs.cata.parent().context("a program is in a folder")?.to_owned();
    let foreign = Some((cross::GUEST, "libexec/catamaran")).filter(|(name, _)| folder.join(name).exists());
    for (name, place) in PLACES.into_iter().chain(foreign) {
        let content = fs::read(folder.join(name)).with_context(|| format!("read {name}"))?;
        put(&options.prefix.join(place).join(name), &content, 0o755)?;
    }
    for (shell, place) in COMPLETIONS {
        let output = Command::new(&programs.cata).args(["completion", shell]).output().context("run cata")?;
        ensure!(output.status.success(), "`cata completion {shell}`: {}", output.status);
        put(&options.prefix.join(place), &output.stdout, 0o644)?;
    }
    Ok(())
}

/// Under another name first: a program that runs cannot be written to, and who starts one must find it whole.
fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        fs::write(&new, content)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("install {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
