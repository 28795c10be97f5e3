//! OCI runtimes side by side: `run` of `true` with every namespace, a cgroup and a filter, and `exec`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cata_tests::bundle::Bundle;
use cata_tests::command::runtime_binary;
use cata_tests::world::World;
use serde_json::{Value, json};

use super::measure::cpu_ms;

/// Debian's copy of Docker's profile.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

struct Runtime {
    program: PathBuf,
    state: PathBuf,
    /// Wall and CPU milliseconds of `run` and of `exec`; KiB at the peak of `run`.
    figures: [Vec<f64>; 5],
}

/// Plays all of it. At least 200 rounds tell something; as many as are asked for are played.
pub(super) fn measure(world: &World, rounds: usize) -> Result<()> {
    let once = bundle(world, "once", &["true"])?;
    let long = bundle(world, "long", &["sleep", "100000"])?;
    let programs = [runtime_binary(), PathBuf::from("/usr/bin/crun"), PathBuf::from("/usr/sbin/runc")];
    let mut runtimes: Vec<Runtime> = programs
        .into_iter()
        .filter(|program| program.exists())
        .enumerate()
        .map(|(at, program)| Runtime {
            program,
            state: world.scratch().join(format!("state{at}")),
            figures: Default::default(),
        })
        .collect();
    let peak = world.scratch().join("peak");
    for runtime in &runtimes {
        call(runtime.command(&["run", "--detach", "--bundle"]).arg(&long.dir).arg("long"))?;
    }
    // The first rounds are for caches: not counted.
    for round in 0..rounds + 3 {
        for runtime in &mut runtimes {
            let run = timed(runtime.command(&["run", "--bundle"]).arg(&once.dir).arg("once"))?;
            let exec = timed(&mut runtime.command(&["exec", "long", "true"]))?;
            let mut time = Command::new("/usr/bin/time");
            time.args(["--format=%M", "--output"]).arg(&peak).arg(&runtime.program).arg("--root");
            time.arg(&runtime.state).args(["run", "--bundle"]).arg(&once.dir).arg("once");
            call(&mut time)?;
            let text = std::fs::read_to_string(&peak).context("read what `time` wrote")?;
            let kib: f64 = text.trim().parse().context("what `time` wrote")?;
            if round >= 3 {
                for (figures, value) in runtime.figures.iter_mut().zip([run.0, run.1, exec.0, exec.1, kib]) {
                    figures.push(value);
                }
            }
        }
    }
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "median of", "run wall", "run CPU", "exec wall", "exec CPU", "peak"
    );
    for runtime in &mut runtimes {
        let name = runtime.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let [run, run_cpu, exec, exec_cpu, peak] = runtime.figures.each_mut().map(|figures| median(figures));
        println!(
            "{name:<14} {run:>6.2} ms {run_cpu:>6.2} ms {exec:>6.2} ms {exec_cpu:>6.2} ms {peak:>6.0} KiB"
        );
        call(&mut runtime.command(&["delete", "--force", "long"]))?;
    }
    Ok(())
}

impl Runtime {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).args(words);
        command
    }
}

/// Everything of its own, limits, and a filter of some 300 calls.
fn bundle(world: &World, name: &str, args: &[&str]) -> Result<Bundle> {
    let mut bundle = Bundle::new(world, name);
    // The peers' version of the specification.
    bundle.spec["ociVersion"] = json!("1.0.2");
    bundle.spec["process"]["args"] = json!(args);
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 200_000_000});
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 100});
    bundle.spec["linux"]["seccomp"] = profile(Path::new(PROFILE))?;
    let _ = bundle.runtime(["features"]).ok();
    Ok(bundle)
}

/// The calls that Docker's profile allows to everybody.
fn profile(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let docker: Value = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    let plain = |rule: &&Value| {
        let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
        rule["action"] == "SCMP_ACT_ALLOW" && empty(&rule["args"]) && empty(&rule["includes"]["caps"])
    };
    let rules = docker["syscalls"].as_array().context("a list of rules")?;
    let names: Vec<&Value> =
        rules.iter().filter(plain).filter_map(|rule| rule["names"].as_array()).flatten().collect();
    Ok(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }))
}

fn call(command: &mut Command) -> Result<()> {
    let null = || Stdio::null();
    let status = command.stdin(null()).stdout(null()).stderr(null()).status();
    let status = status.with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Wall and CPU milliseconds.
fn timed(command: &mut Command) -> Result<(f64, f64)> {
    let (cpu, start) = (cpu_ms()?, Instant::now());
    call(command)?;
    Ok((start.elapsed().as_secs_f64() * 1e3, cpu_ms()? - cpu))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
