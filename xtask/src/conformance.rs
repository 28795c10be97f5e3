//! `cargo xtask conformance`: test suites that others wrote, built beforehand, on several OCI runtimes in one run.
//!
//! What fails on every runtime says something of the suite or the machine, what fails on one of that runtime. Each
//! program runs in a private world and in namespaces of its own there, so that one that hangs or dies takes nothing
//! along.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cata_tests::cache;
use cata_tests::command::runtime_binary;
use cata_tests::world::{self, Setup, World};
use clap::Args;

use crate::{build, deps};

/// Options of `conformance`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory with the programs of the OCI runtime-tools' `validation`, their `runtimetest` and root archive; not
    /// below /tmp or /run
    #[arg(long)]
    validation: Option<PathBuf>,
    /// Directory with youki's `contest`, its `runtimetest` (static) and `bundle.tar.gz`; not below /tmp or /run
    #[arg(long)]
    contest: Option<PathBuf>,
    /// Besides `cata-runtime`; runc and crun without any
    #[arg(long)]
    runtime: Vec<PathBuf>,
    /// Only tests whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Print what each failed test said
    #[arg(long)]
    why: bool,
}

/// How long one test may take: `timeout` ends it.
const LIMIT_SECONDS: &str = "120";

/// Prepares and plays, or, inside the world, only plays.
pub(crate) fn run(options: &Options, world: Option<World>) -> Result<()> {
    if let Some(world) = world {
        return play(options, &world);
    }
    ensure!(
        options.validation.is_some() || options.contest.is_some(),
        "give --validation, --contest, or both"
    );
    ensure!(rustix::process::geteuid().is_root(), "these suites need root: they make namespaces and cgroups");
    world::sweep();
    deps::run(deps::Set::Bench)?;
    let name = format!("cata-conformance-{}", std::process::id());
    let setup = Setup {
        dir: cache::dir()?.join("worlds").join(&name),
        name,
        args: std::env::args_os().skip(1).collect(),
        env: vec![("CATA_RUNTIME".into(), build::runtime("release")?.into())],
        deadline: Some(Duration::from_secs(3600)),
        linger: false,
        output: None,
        shares_network: false,
    };
    ensure!(setup.run()?.success(), "the suites could not be played");
    Ok(())
}

fn play(options: &Options, world: &World) -> Result<()> {
    // Some programs count the descriptors that they have.
    cata_sys::program::close_on_execute_from(3).context("keep descriptors from the suites")?;
    let others = match options.runtime.as_slice() {
        [] => vec![PathBuf::from("/usr/sbin/runc"), PathBuf::from("/usr/bin/crun")],
        given => given.to_vec(),
    };
    let mut runtimes = Vec::new();
    for program in std::iter::once(runtime_binary()).chain(others) {
        ensure!(program.exists(), "there is no {}", program.display());
        runtimes.push(Runtime::wrap(&program, &world.scratch())?);
    }
    if let Some(dir) = &options.validation {
        let mut tests = programs(dir)?;
        tests.retain(|name| name != "runtimetest");
        table("validation", tests, &runtimes, options, |test, runtime| {
            let mut command = alone(dir);
            command.arg(dir.join(test)).env("RUNTIME", &runtime.program);
            command
        })?;
    }
    if let Some(dir) = &options.contest {
        let contest = dir.join("contest");
        let listed = Command::new(&contest).arg("list").current_dir(dir).output();
        let listed = listed.with_context(|| format!("run {} (not below /tmp or /run)", contest.display()))?;
        let tests = String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect();
        table("contest", tests, &runtimes, options, |test, runtime| {
            let mut command = alone(dir);
            command.arg(&contest).args(["run", "--runtime"]).arg(&runtime.program);
            command.arg("--runtimetest").arg(dir.join("runtimetest")).args(["-t", test]);
            // Otherwise it expects youki's own words.
            command.env("RUNTIME_KIND", "runc");
            command
        })?;
    }
    Ok(())
}

struct Runtime {
    name: String,
    program: PathBuf,
}

impl Runtime {
    /// Behind a script, for all alike: the specification's version becomes one that every runtime knows, and an id
    /// comes last, where all of them take it.
    fn wrap(program: &Path, dir: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wrapper = dir.join(format!("{name}.sh"));
        let text =
            include_str!("conformance/wrapper.sh").replace("@RUNTIME@", &program.display().to_string());
        fs::write(&wrapper, text)
            .and_then(|()| fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", wrapper.display()))?;
        Ok(Self { name, program: wrapper })
    }
}

/// The names of what can be executed in a directory.
fn programs(dir: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(dir).with_context(|| format!("list {} (not below /tmp or /run)", dir.display()))?;
    let executable = |entry: &fs::DirEntry| {
        entry.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(executable)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// What it starts ends with it.
fn alone(dir: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECONDS, "unshare", "--mount", "--net", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "--"]).current_dir(dir);
    command
}

fn table(
    suite: &str,
    mut tests: Vec<String>,
    runtimes: &[Runtime],
    options: &Options,
    command: impl Fn(&str, &Runtime) -> Command,
) -> Result<()> {
    if let Some(part) = &options.only {
        tests.retain(|test| test.contains(part.as_str()));
    }
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    println!("\n| {suite} | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let mut total = vec![Outcome::default(); runtimes.len()];
    for test in tests {
        let mut cells = Vec::new();
        let mut words = Vec::new();
        for (runtime, total) in runtimes.iter().zip(&mut total) {
            let output = command(&test, runtime).output().with_context(|| format!("run {test}"))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let outcome = Outcome::read(&text, output.status.success());
            if options.why && !outcome.is_good() {
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                words.push(format!("{}: {}\n{text}{errors}", runtime.name, output.status));
            }
            cells.push(outcome.to_string());
            total.add(outcome);
        }
        println!("| {test} | {} |", cells.join(" | "));
        words.iter().for_each(|said| println!("\n```\n{said}\n```\n"));
    }
    let cells: Vec<String> = total.iter().map(ToString::to_string).collect();
    println!("| **all** | {} |", cells.join(" | "));
    Ok(())
}

/// What a test came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Ended without a word of why.
    died: usize,
}

impl Outcome {
    /// Both forms: `ok 1 - words # SKIP`, and `1 / 4 : words : not ok`.
    fn read(text: &str, success: bool) -> Self {
        let mut outcome = Self::default();
        for line in text.lines() {
            let last =
                line.rsplit_once(" : ").filter(|(start, _)| start.contains(" / ")).map(|(_, last)| last);
            if line.starts_with("not ok ") || last == Some("not ok") {
                outcome.failed += 1;
            } else if last == Some("skipped") || (line.starts_with("ok ") && line.contains("# SKIP")) {
                outcome.skipped += 1;
            } else if line.starts_with("ok ") || last == Some("ok") {
                outcome.passed += 1;
            }
        }
        outcome.died = usize::from(!success && outcome.failed == 0);
        outcome
    }

    fn is_good(self) -> bool {
        self.failed == 0 && self.died == 0
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.died += other.died;
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.passed)?;
        for (count, word) in [(self.failed, "failed"), (self.died, "died"), (self.skipped, "skipped")] {
            if count > 0 {
                write!(out, ", {count} {word}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn outcome_of_both_forms() {
        let tap = "TAP version 13\nok 1 - a\nnot ok 2 - b\nok 3 # SKIP c\n1..3\n";
        let expected = Outcome { passed: 1, failed: 1, skipped: 1, died: 0 };
        assert_eq!(Outcome::read(tap, true), expected);
        let contest = "# Start group x\n1 / 3 : a : ok\n2 / 3 : b : not ok\n\twhy\n3 / 3 : c : skipped\n";
        assert_eq!(Outcome::read(contest, false), expected);
        assert_eq!(Outcome::read("ok 1 - a\n", false).to_string(), "1, 1 died");
    }
}
