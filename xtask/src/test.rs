//! `cargo xtask test`: everything that the tests need, then all tests, then one line that counts them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache;
use clap::Args;
use serde_json::Value;

use crate::{build, cross, deps, foreign, images, whole};

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only the tests that are run in the lab
    #[arg(long)]
    lab: bool,
    /// Only the builds that fetch from this machine's package registries, beside docker and buildah
    #[arg(long, conflicts_with = "lab")]
    registries: bool,
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

impl Count {
    /// Runs a program, prints what it prints, each line behind `mark`, and counts the results in it.
    fn follow(&mut self, command: &mut Command, mark: &str) -> Result<ExitStatus> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("run the tests")?;
        for line in BufReader::new(child.stdout.take().context("the tests' output")?).lines() {
            let line = line.context("read the tests' output")?;
            self.add(&line);
            println!("{mark}{line}");
        }
        child.wait().context("wait for the tests")
    }

    fn add_all(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Test programs that are run in the lab too: package, name.
const IN_LAB: [(&str, &str); 2] = [("cata-runtime", "cgroup"), ("cata-tests", "it")];

/// Seconds for all of them. It takes half of that in one machine on two idle cores.
const LAB_TIMEOUT: u64 = 2000;

/// How often the lab is started anew when its machine is lost. A test that fails is not played again.
const LAB_TRIES: u32 = 3;
/// What the lab exits with when it failed itself; the tests exit with 0 or 1.
const LAB_LOST: i32 = 125;

/// Memory of the lab's machine, and what its emulator and file server take besides, in MiB.
const LAB_MEMORY: u64 = 4096;
const LAB_BESIDE: u64 = 1024;

/// So many machines side by side, where there is room: each has one processor, emulated by one of ours.
const LABS: usize = 2;

/// Processors for each: another one for the emulator's own threads. Two machines on two processors stood still again and
/// again, each time in the same test, waiting for an interrupt of their clock.
const LAB_CORES: usize = 2;

/// In how many machines the lab's tests are played: who names tests gets one.
fn labs(filter: &[String]) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let facts = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = facts.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let free = free.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10;
    let room = free >= LABS as u64 * (LAB_MEMORY + LAB_BESIDE);
    if filter.is_empty() && cores >= LABS * LAB_CORES && room { LABS } else { 1 }
}

/// Plays the lab's tests; whether all went well.
fn in_lab(programs: &build::Programs, filter: &[String], count: &mut Count) -> Result<bool> {
    let labs = labs(filter);
    let tests = test_programs()?;
    let play = |part: usize| -> Result<(Count, bool)> {
        let mark = if labs > 1 { format!("lab {}: ", part + 1) } else { String::new() };
        for attempt in 1.. {
            let mut here = Count::default();
            let status = here.follow(&mut lab_command(programs, &tests, filter, (part, labs))?, &mark)?;
            if status.code() == Some(LAB_LOST) && here.failed == 0 && attempt < LAB_TRIES {
                println!("{mark}the emulated machine was lost; once more");
                continue;
            }
            return Ok((here, status.success()));
        }
        unreachable!("the last attempt returns")
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..labs).map(|part| scope.spawn(move || play(part))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut all_well = true;
    for part in parts {
        let (here, well) =
            part.map_err(|_| anyhow::anyhow!("a thread that follows the lab has panicked"))??;
        count.add_all(&here);
        all_well &= well;
    }
    Ok(all_well)
}

/// One run of the lab for all tests of a part: the start of the machine is a part of what it costs.
fn lab_command(
    programs: &build::Programs,
    tests: &[PathBuf],
    filter: &[String],
    (part, labs): (usize, usize),
) -> Result<Command> {
    let mut script = String::from("status=0\n");
    for program in tests {
        // What does not know of parts is played in the first one.
        if part == 0 || program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("it-")) {
            script.push_str(&format!("'{}' {} || status=1\n", program.display(), filter.join(" ")));
        }
    }
    script.push_str("exit $status\n");
    let worlds = cache::dir()?.join("worlds");
    // The build before has replaced the file that this program was started from.
    let mut command = Command::new("/proc/self/exe");
    // One: of two, one now and then meets an instruction of the kernel that the other is patching.
    command.args(["lab", "--cpus", "1", "--mem", &LAB_MEMORY.to_string()]);
    command.args(["--timeout", &LAB_TIMEOUT.to_string(), "--env", "CI"]);
    command.arg("--env").arg(format!("CATA_LAB_PART={part}/{labs}"));
    command.arg("--env").arg(format!("CATA_BIN={}", programs.cata.display()));
    let runtime = programs.cata.with_file_name("cata-runtime");
    command.arg("--env").arg(format!("CATA_RUNTIME={}", runtime.display()));
    // Writable layers cannot be on an overlay.
    command.arg("--scratch").arg(worlds).args(["--", "sh", "-c", &script]);
    Ok(command)
}

/// Where cargo has put the programs of [`IN_LAB`].
fn test_programs() -> Result<Vec<PathBuf>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--workspace", "--no-run", "--message-format=json"]);
    let output = cargo.current_dir(cache::repository()).output().context("run cargo test")?;
    let mut found = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let ours = |(package, name): &(&str, &str)| {
            // `path+file:///…/tests#cata-tests@0.1.0`
            text("/package_id").contains(&format!("#{package}@")) && text("/target/name") == *name
        };
        if IN_LAB.iter().any(ours) && !text("/executable").is_empty() {
            found.push(PathBuf::from(text("/executable")));
        }
    }
    ensure!(
        found.len() == IN_LAB.len(),
        "cargo names {} of {} programs for the lab",
        found.len(),
        IN_LAB.len()
    );
    Ok(found)
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
    build::programs("dev")?;
    if root {
        // For machines of another platform; without root no test starts one.
        cross::guest("dev", &build::target().join("debug"))?;
    }
    // `cargo test` may link the companions anew, the ordinary way: the static ones are kept aside.
    let programs = build::set_aside(&build::target().join("debug"))?;
    if root {
        images::run()?;
        images::kernels(&programs.cata)?;
        foreign::make(&programs.cata)?;
        whole::make()?;
    }

    let mut count = Count::default();
    let mut all_well = true;
    if options.registries {
        let report = build::target().join("builds.txt");
        // One at a time may be asked for by its name.
        let only = options.filter.first().cloned().unwrap_or_default();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--quiet", "-p", "cata-tests", "--test", "it", "--", "images_of_packages"]);
        command.env("CATA_REGISTRIES", only).env("CATA_REPORT", &report);
        command.env("CATA_BIN", &programs.cata).env("CATA_SUPERVISOR", &programs.supervisor);
        command.current_dir(cache::repository());
        all_well &= count.follow(&mut command, "")?.success();
        println!("{}", std::fs::read_to_string(&report).unwrap_or_default());
    } else if !options.lab {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).args(&options.filter);
        command.env("CATA_BIN", &programs.cata).env("CATA_SUPERVISOR", &programs.supervisor);
        command.env("CATA_RUNTIME", programs.cata.with_file_name("cata-runtime"));
        command.current_dir(cache::repository());
        println!("$ cargo test --workspace --no-fail-fast {}", options.filter.join(" "));
        all_well &= count.follow(&mut command, "")?.success();
    }
    // Whoever names tests wants these and no others.
    if root && !options.registries && (options.lab || options.filter.is_empty()) {
        println!("\n$ cargo xtask lab: what is different with cgroup v2 and a working KVM");
        all_well &= in_lab(&programs, &options.filter, &mut count)?;
    }
    println!("\n{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    ensure!(all_well, "some tests failed");
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
