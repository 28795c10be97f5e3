//! `cargo xtask test`: everything that the tests need, then all tests, then one line that counts them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache;
use clap::Args;

use crate::{build, deps, images};

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed to `cargo test`: names of tests, `-p cata-network`, `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// How many tests ended how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Count {
    /// Adds what a `test result: …` line counts.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let figures = rest.split_once(". ").map_or("", |(_, figures)| figures);
        for figure in figures.split("; ") {
            let Some((number, word)) = figure.split_once(' ') else { continue };
            let number: u32 = number.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Installs, builds, makes images and runs the tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let strict = std::env::var_os("CI").is_some_and(|value| value != "false" && !value.is_empty());
    if root {
        deps::run(deps::Set::Test)?;
    } else {
        println!("not root: nothing is installed, and the tests that need root are skipped");
    }
    // One set of packages and one profile for all: nothing is compiled twice.
    build::cargo(&["build", "--quiet", "--workspace", "--all-targets"])?;
    build::companions("dev")?;
    // `cargo test` may link the companions anew, the ordinary way: the static ones are kept aside.
    let programs = build::set_aside(&build::target().join("debug"))?;
    if root {
        images::run()?;
        images::kernels(&programs.cata)?;
    }

    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).args(&options.filter);
    command.current_dir(cache::repository()).stdout(Stdio::piped());
    command.env("CATA_BIN", &programs.cata).env("CATA_SUPERVISOR", &programs.supervisor);
    command.env("CATA_RUNTIME", programs.cata.with_file_name("cata-runtime"));
    println!("$ cargo test --workspace --no-fail-fast {}", options.filter.join(" "));
    let mut child = command.spawn().context("run cargo test")?;
    let mut count = Count::default();
    for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
        let line = line.context("read cargo's output")?;
        count.add(&line);
        println!("{line}");
    }
    let status = child.wait().context("wait for cargo test")?;
    println!("\n{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    ensure!(status.success(), "some tests failed");
    ensure!(count.passed > 0, "no test ran");
    if strict && count.skipped > 0 {
        bail!("{} tests were skipped, which CI does not allow", count.skipped);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_add_sums_result_lines_only() {
        let mut count = Count::default();
        count.add(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        count.add(
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1s",
        );
        count.add("test result_line ... ok");
        assert_eq!(count, Count { passed: 7, failed: 3, skipped: 1 });
    }
}
