//! `cargo xtask lab -- COMMAND`: a command in a throw-away machine, its output and exit status back here.
//!
//! The machine is emulated (QEMU without KVM), so it is the same everywhere: a Debian kernel, one tree of
//! cgroups (v2, or v1 and hybrid when asked), and an emulated AMD processor with nested paging, so that
//! `/dev/kvm` inside works for unmodified guests. Its files are this machine's own, read-only beneath an
//! overlay whose writable layer is a disk that is thrown away: programs, packages and caches are all there.
//! There is no network but loopback.
//!
//! Work of the processor takes 3 to 10 times as long as here, a new process 12 to 20 times, a guest inside
//! three times that again. `CATA_TEST_SLOWNESS` says so to tests.

#![allow(clippy::print_stderr, reason = "the command's own output is on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use crate::deps;

mod kernel;
mod machine;
mod ramfs;
mod watch;

/// What deadlines in the lab are multiplied by.
pub(crate) const SLOWNESS: u32 = 20;

/// Options of `lab`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Virtual processors
    #[arg(long, default_value_t = 2)]
    pub(crate) cpus: u32,
    /// Emulate all processors in one thread: slower, but what one of them patches no other one is running
    #[arg(long)]
    pub(crate) one_thread: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 3072)]
    pub(crate) mem: u32,
    /// Seconds for everything; 0: no limit
    #[arg(long, default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Debian's kernel: 6.12 or 6.1 [default: 6.12, with cgroup v1 6.1]
    #[arg(long)]
    pub(crate) kernel: Option<String>,
    /// What is at /sys/fs/cgroup
    #[arg(long, value_parser = ["v2", "v1", "hybrid"], default_value = "v2")]
    pub(crate) cgroup: String,
    /// A directory of this machine to write to, at its own path
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Vec<PathBuf>,
    /// A directory that is empty, on a disk of the lab's own, and no overlay
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Vec<PathBuf>,
    /// A variable for the command
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A further disk (raw), writes kept
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Vec<PathBuf>,
    /// Do not load KVM
    #[arg(long)]
    pub(crate) no_kvm: bool,
    /// Hand standard input to the command
    #[arg(long)]
    pub(crate) stdin: bool,
    /// On this terminal; a shell if no command is given
    #[arg(long)]
    pub(crate) tty: bool,
    /// Keep the kernel's console in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Further parameters of the kernel
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) append: String,
    /// What to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Runs the command; the exit code is its own, 124 at the time limit, 125 when the lab itself failed.
pub(crate) fn run(options: &Options) -> ExitCode {
    match play(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn play(options: &Options) -> Result<u8> {
    ensure!(rustix::process::geteuid().is_root(), "the lab needs root: it serves this machine's own files");
    ensure!(options.tty || !options.command.is_empty(), "no command given: cargo xtask lab -- COMMAND");
    ensure!(cfg!(target_arch = "x86_64"), "the lab's machine can only be started on amd64");
    deps::run(deps::Set::Lab)?;
    let default = if options.cgroup == "v2" { "6.12" } else { "6.1" };
    let kernel = kernel::get(options.kernel.as_deref().unwrap_or(default))?;
    machine::run(options, &kernel)
}
