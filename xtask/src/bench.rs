//! `cargo xtask bench`: Catamaran and its peers side by side, in one private world, in turns.
//!
//! Absolute times drift with the machine, so rounds are interleaved (every engine once a round) and ratios are
//! what counts. CPU time is that of the whole world, from its cgroup: clients, daemons, helpers and the
//! payload, however they are started. Nothing here is a test; nothing fails for being slow.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cata_tests::cache;
use cata_tests::world::{self, Setup, World};
use clap::Args;

use crate::{build, deps, images};

mod build_images;
mod case;
mod engine;
mod measure;
mod report;
mod runtime;
mod vm;

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// `build`: builds of images; `runtime`: OCI runtimes; `vm`: hypervisors, in the lab; otherwise containers
    #[arg(value_parser = ["build", "runtime", "vm"])]
    what: Option<String>,
    /// How often each engine does each thing
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Only the cases whose name holds this
    #[arg(long)]
    case: Option<String>,
    /// Only these engines: cata, podman, docker, crun, runc (of `build`: cata, podman, docker, buildah)
    #[arg(long, value_delimiter = ',')]
    engine: Vec<String>,
    /// Hypervisors on this machine's own KVM
    #[arg(long)]
    here: bool,
}

/// Prepares and measures, or, inside the world, only measures.
pub(crate) fn run(options: &Options, world: Option<World>) -> Result<()> {
    if options.what.as_deref() == Some("vm") {
        return vm::run(options.here, options.rounds, world);
    }
    let runtimes = options.what.as_deref() == Some("runtime");
    if let Some(world) = world {
        return if runtimes {
            runtime::measure(&world, options.rounds)
        } else {
            measure_all(options, &world)
        };
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark needs root: it makes namespaces, mounts and cgroups"
    );
    world::sweep();
    deps::run(deps::Set::Bench)?;
    let programs = if runtimes {
        vec![("CATA_RUNTIME".into(), build::runtime("release")?.into())]
    } else {
        let programs = build::run(&build::Options { release: true, arm64: false })?;
        images::make(&["busybox", "postgres"])?;
        vec![
            ("CATA_BIN".into(), programs.cata.into()),
            ("CATA_SUPERVISOR".into(), programs.supervisor.into()),
        ]
    };
    in_world(programs, Some(Duration::from_secs(3600)))
}

/// Runs this program again in a world of its own.
fn in_world(env: Vec<(OsString, OsString)>, deadline: Option<Duration>) -> Result<()> {
    let name = format!("cata-bench-{}", std::process::id());
    let setup = Setup {
        dir: cache::dir()?.join("worlds").join(&name),
        name,
        args: std::env::args_os().skip(1).collect(),
        env,
        deadline,
        linger: false,
        output: None,
        shares_network: false,
    };
    let status = setup.run()?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}

fn measure_all(options: &Options, world: &World) -> Result<()> {
    if options.what.is_some() {
        return build_images::run(options, world);
    }
    let wanted = |name: &str| options.engine.is_empty() || options.engine.iter().any(|engine| engine == name);
    let mut engines = Vec::new();
    for kind in engine::Kind::ALL.into_iter().filter(|kind| wanted(kind.name())) {
        match engine::Engine::prepare(kind, world) {
            Ok(engine) => engines.push(engine),
            Err(error) => println!("{} is left out: {error:#}", kind.name()),
        }
    }
    ensure!(!engines.is_empty(), "no engine to measure");
    let cases: Vec<_> = case::Case::ALL
        .into_iter()
        .filter(|case| options.case.as_ref().is_none_or(|part| case.name().contains(part)))
        .collect();
    let archive = match cases.iter().any(|case| case.moves_images()) {
        true => Some(case::prepare(world).context("prepare the images to pull and load")?),
        false => None,
    };
    for case in cases {
        let able: Vec<_> = engines.iter().filter(|engine| case.suits(engine.kind)).collect();
        let results = measure::interleaved(case, &able, options.rounds, archive.as_ref())?;
        report::print(case, &results);
    }
    Ok(())
}
