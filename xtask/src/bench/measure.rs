//! How it is measured: wall time of the command, CPU time of the world, memory outside the payload.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cata_tests::world::pids;

use super::case::{Archive, Case};
use super::engine::{Engine, Kind};

/// What an engine needed, a value for each round.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) wall_ms: Vec<f64>,
    pub(crate) cpu_ms: Vec<f64>,
    /// KiB a container; of [`Case::Memory`] only.
    pub(crate) memory_kib: Vec<f64>,
}

/// Every engine once a round, so that what drifts drifts for all.
pub(crate) fn interleaved(
    case: Case,
    engines: &[&Engine],
    rounds: usize,
    archive: Option<&Archive>,
) -> Result<Vec<Sample>> {
    let sample = |engine: &&Engine| Sample {
        kind: engine.kind,
        wall_ms: Vec::new(),
        cpu_ms: Vec::new(),
        memory_kib: Vec::new(),
    };
    let mut samples: Vec<Sample> = engines.iter().map(sample).collect();
    for engine in engines {
        case.set_up(engine).with_context(|| format!("{}: {}", engine.kind.name(), case.name()))?;
    }
    // The first round is for caches: not counted.
    for round in 0..=case.rounds(rounds) {
        for (engine, sample) in engines.iter().zip(&mut samples) {
            let memory = if case == Case::Memory { pss_kib()? } else { 0.0 };
            let cpu = cpu_ms()?;
            let started = Instant::now();
            case.play(engine, archive, round)
                .with_context(|| format!("{}: {}", engine.kind.name(), case.name()))?;
            let wall = started.elapsed();
            // What goes on after the command has ended is part of its price.
            std::thread::sleep(Duration::from_millis(150));
            let cpu = cpu_ms()? - cpu;
            let memory = if case == Case::Memory { (pss_kib()? - memory) / 10.0 } else { 0.0 };
            case.reset(engine, archive)?;
            std::thread::sleep(Duration::from_millis(50));
            if round > 0 {
                sample.wall_ms.push(wall.as_secs_f64() * 1000.0);
                sample.cpu_ms.push(cpu);
                sample.memory_kib.push(memory);
            }
        }
    }
    for engine in engines {
        case.tear_down(engine)?;
    }
    Ok(samples)
}

/// CPU time of everything that ever ran in this world.
pub(super) fn cpu_ms() -> Result<f64> {
    for path in ["/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage"] {
        if let Ok(text) = fs::read_to_string(path) {
            let nanoseconds: f64 = text.trim().parse().with_context(|| format!("read {path}"))?;
            return Ok(nanoseconds / 1e6);
        }
    }
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat").context("read /sys/fs/cgroup/cpu.stat")?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
    Ok(usage.parse::<f64>().context("usage_usec")? / 1e3)
}

/// Proportional memory of every process but this one and the payload.
fn pss_kib() -> Result<f64> {
    let mut sum = 0.0;
    for pid in pids().into_iter().filter(|pid| *pid != std::process::id()) {
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        if name.trim() == "sleep" {
            continue;
        }
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
        sum += line.trim().trim_end_matches(" kB").parse::<f64>().context("a Pss line")?;
    }
    Ok(sum)
}
