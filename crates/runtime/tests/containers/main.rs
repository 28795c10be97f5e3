//! Real containers from a busybox root, in a private mount namespace. Needs root; says so otherwise.
//!
//! `--measure` prints how long a start takes instead.
//!
//! Not the usual harness: the runtime copies its caller, which must have one thread.

#![allow(clippy::print_stdout, reason = "a harness reports")]

mod exec;
mod life;
mod measure;
mod mounts;
mod rights;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use world::World;

type Case = (&'static str, fn(&World));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if !rustix::process::geteuid().is_root() {
        println!("containers: skipped, needs root");
        return ExitCode::SUCCESS;
    }
    let cases: Vec<Case> = [life::CASES, mounts::CASES, rights::CASES, exec::CASES].concat();
    let world = World::new();
    if arguments.iter().any(|argument| argument == "--measure") {
        measure::run(&world);
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let mut run = 0;
    for (name, case) in cases {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        run += 1;
        let passed = catch_unwind(AssertUnwindSafe(|| case(&world))).is_ok();
        println!("{} {name}", if passed { "ok    " } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("{run} run, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
