//! `cargo xtask fuzz`: the fuzz targets, built by the stable compiler with coverage, each run for a while.
//!
//! What `cargo fuzz` does with a nightly compiler, less the address sanitizer: the parsers hold no `unsafe`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_tests::cache;
use clap::Args;

use crate::build;

/// Options of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these targets; all without any
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// What libFuzzer wants to know of the program, and what only a debug build would notice.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=yes \
    -Coverflow-checks=yes";

/// Builds and runs them; what crashes one is kept beside its corpus, and is an error.
pub(crate) fn run(options: &Options) -> Result<()> {
    let home = cache::repository().join("fuzz");
    let mut known: Vec<String> = fs::read_dir(home.join("fuzz_targets"))
        .context("list the fuzz targets")?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    known.sort();
    for target in &options.targets {
        ensure!(known.contains(target), "no fuzz target {target}: there are {}", known.join(", "));
    }
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = build::target().join("fuzz");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--target", &triple])
        .current_dir(&home)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &folder)
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    for target in chosen {
        let corpus = home.join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
        println!("$ {target}, {} s", options.seconds);
        let status = Command::new(folder.join(&triple).join("release").join(target))
            .arg(format!("-max_total_time={}", options.seconds))
            .args(["-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1", "-verbosity=0"])
            .arg(format!("-artifact_prefix={}/crash-", corpus.display()))
            .arg(&corpus)
            .status()
            .with_context(|| format!("run {target}"))?;
        ensure!(status.success(), "{target} found something: see {}", corpus.display());
    }
    Ok(())
}
