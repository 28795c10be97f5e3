//! The whole of it: `cata run --isolation vm`, its phases, and what its processes hold.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_tests::command::cata_binary;
use cata_tests::world::{World, pids};
use cata_tests::{kernel, seed};

use super::figures::Figures;
use super::memory;

/// The machine's memory in MiB.
const MEMORY: u64 = 256;

/// Prints both.
pub(super) fn measure(world: &World, rounds: usize) -> Result<()> {
    seed::seed(world, &["busybox"])?;
    kernel::seed(world)?;
    let memory = format!("{MEMORY}m");
    let options = ["--isolation", "vm", "--vmm", "kvm", "--cpus", "1", "--memory", &memory];
    let mut table: Option<Figures> = None;
    for _ in 0..rounds {
        let output = cata(&[&["run", "--rm", "--timing"], &options[..], &["busybox", "true"]].concat())?;
        // `      kernel    123.456 ms`
        let phases: Vec<(&str, f64)> = output
            .lines()
            .filter_map(|line| {
                let (name, took) = line.trim().strip_suffix(" ms")?.split_once("  ")?;
                Some((name, took.trim().parse().ok()?))
            })
            .collect();
        let columns: Vec<&str> = phases.iter().map(|(name, _)| *name).collect();
        let row = phases.iter().map(|(_, took)| *took).collect();
        table.get_or_insert_with(|| Figures::new(&columns)).add("cata run", row);
    }
    println!("\n## `cata run --isolation vm busybox true`: phases in ms, median of {rounds}\n");
    if let Some(table) = table {
        print!("{table}");
    }
    cata(&[&["run", "-d", "--name", "idle"], &options[..], &["busybox", "sleep", "100000"]].concat())?;
    let mut table = Figures::new(&["own memory, MiB", "the guest's, MiB"]);
    for pid in pids() {
        let Some(name) = named(pid) else { continue };
        let held = memory::of(pid, MEMORY)?;
        table.add(&name, vec![held.own, held.guest]);
    }
    println!("\n## its processes while it sleeps (its guest has {MEMORY} MiB)\n");
    print!("{table}");
    cata(&["rm", "-f", "idle"]).map(drop)
}

/// The program and its first word, if it belongs to a machine.
fn named(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words.next()?.rsplit('/').next()?;
    let ours = ["cata-vmm", "virtiofsd", "cata-supervisor"].contains(&program);
    ours.then(|| format!("{program} {}", words.next().unwrap_or_default()))
}

/// What it says on standard error.
fn cata(args: &[&str]) -> Result<String> {
    let output = Command::new(cata_binary()).args(args).output().context("run cata")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "cata {}: {}\n{said}", args.join(" "), output.status);
    Ok(said)
}
