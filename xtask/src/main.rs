//! The project's own commands: `cargo xtask demo`, `test`, `bench`, and what they are made of.

#![allow(clippy::print_stdout, reason = "these commands are for people to read")]

use std::process::ExitCode;

use anyhow::Result;
use cata_tests::world;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod conformance;
mod cross;
mod demo;
mod deps;
mod foreign;
mod fuzz;
mod images;
mod install;
mod lab;
mod test;
#[cfg(test)]
mod tidy;
mod whole;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing, build, make the images, and play a real PostgreSQL as a container
    Demo(demo::Options),
    /// Install what is missing, build, make the images, and run every test
    Test(test::Options),
    /// Measure Catamaran and its peers side by side
    Bench(bench::Options),
    /// Play suites that others wrote, built beforehand, on several OCI runtimes
    Conformance(conformance::Options),
    /// Run the fuzz targets, each for a while
    Fuzz(fuzz::Options),
    /// Build `cata` and its supervisor
    Build(build::Options),
    /// Build `cata` and what belongs to it, and install it
    Install(install::Options),
    /// Install the Debian packages that are missing
    Deps(deps::Options),
    /// Make the test images in the cache, and take the kernels that tests boot
    Images,
    /// Run a command in a throw-away emulated machine with cgroup v2 and a working /dev/kvm
    Lab(lab::Options),
}

fn main() -> Result<ExitCode> {
    let world = world::enter()?;
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options, world),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options, world),
        Command::Conformance(options) => conformance::run(&options, world),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Build(options) => build::run(&options).map(|_| ()),
        Command::Install(options) => install::run(&options),
        Command::Deps(options) => deps::run(options.set),
        Command::Images => images::run().and_then(|()| {
            let programs = build::run(&build::Options { release: false, arm64: false })?;
            images::kernels(&programs.cata)?;
            foreign::make(&programs.cata)?;
            whole::make()
        }),
        Command::Lab(options) => return Ok(lab::run(&options)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
