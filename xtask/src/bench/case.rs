//! What is measured.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cata_tests::registry::{Registry, Settings};
use cata_tests::world::World;

use super::engine::{Engine, Kind};

/// One thing that every engine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    RunNone,
    RunHost,
    RunBridge,
    RunPort,
    Exec,
    Ps50,
    Start50,
    Memory,
    Load,
    Pull,
}

/// The image that is pulled and loaded, and the registry that holds it.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    /// Dropped last: it serves the pulls.
    _registry: Registry,
}

/// Saves the `postgres` image as an archive and puts it into a registry.
pub(crate) fn prepare(world: &World) -> Result<Archive> {
    let registry = Registry::start(world, Settings::default());
    let name = registry.name("postgres:15");
    let file = world.scratch().join("postgres.tar");
    let cata = Engine::prepare(Kind::Cata, world)?;
    let import = cata_tests::cache::Recipe::of("postgres").import_args()?;
    let import: Vec<String> = import.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    cata.call(&import.iter().map(String::as_str).collect::<Vec<_>>())?;
    cata.call(&["tag", "postgres", &name])?;
    cata.call(&["push", &name])?;
    cata.call(&["save", "--output", &file.to_string_lossy(), &name]).context("save the image")?;
    cata.call(&["rmi", "--force", "postgres", &name])?;
    Ok(Archive { file, name, _registry: registry })
}

impl Case {
    pub(crate) const ALL: [Self; 10] = [
        Self::RunNone,
        Self::RunHost,
        Self::RunBridge,
        Self::RunPort,
        Self::Exec,
        Self::Ps50,
        Self::Start50,
        Self::Memory,
        Self::Load,
        Self::Pull,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RunNone => "run --rm, no network",
            Self::RunHost => "run --rm, host network",
            Self::RunBridge => "run --rm, bridge",
            Self::RunPort => "run --rm, bridge and published port",
            Self::Exec => "exec",
            Self::Ps50 => "ps with 50 containers",
            Self::Start50 => "50 × run -d, 8 at a time",
            Self::Memory => "memory a running container",
            Self::Load => "load postgres",
            Self::Pull => "pull postgres",
        }
    }

    /// Whether it needs an [`Archive`].
    pub(crate) fn moves_images(self) -> bool {
        matches!(self, Self::Load | Self::Pull)
    }

    /// Raw runtimes have neither images nor networks.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        !kind.is_raw() || self == Self::RunNone
    }

    /// How often it makes sense to repeat it, given how often it is wanted.
    pub(crate) fn rounds(self, wanted: usize) -> usize {
        match self {
            Self::Start50 | Self::Memory => wanted.min(2),
            Self::Load | Self::Pull => wanted.min(3),
            _ => wanted,
        }
    }

    /// What must be there before the first round.
    pub(crate) fn set_up(self, engine: &Engine) -> Result<()> {
        match self {
            Self::Exec => engine.call(&["run", "-d", "--name", "bench", "busybox", "sleep", "3600"]),
            Self::Ps50 => start_many(engine, 50),
            _ => Ok(()),
        }
    }

    /// Undoes it.
    pub(crate) fn tear_down(self, engine: &Engine) -> Result<()> {
        match self {
            Self::Exec => engine.call(&["rm", "-f", "bench"]),
            Self::Ps50 => remove_many(engine, 50),
            _ => Ok(()),
        }
    }

    /// What is measured.
    pub(crate) fn play(self, engine: &Engine, archive: Option<&Archive>, round: usize) -> Result<()> {
        let run = |options: &[&str]| {
            let mut args = vec!["run", "--rm"];
            args.extend(options);
            args.extend(["busybox", "true"]);
            engine.call(&args)
        };
        match self {
            Self::RunNone if engine.kind.is_raw() => engine.run_bundle(&format!("bench-{round}")),
            Self::RunNone => run(&["--network", "none"]),
            Self::RunHost => run(&["--network", "host"]),
            Self::RunBridge => run(&[]),
            Self::RunPort => run(&["-p", "8080:80"]),
            Self::Exec => engine.call(&["exec", "bench", "true"]),
            Self::Ps50 => engine.call(&["ps"]),
            Self::Start50 => start_many(engine, 50),
            Self::Memory => start_many(engine, 10),
            Self::Load => engine.call(&["load", "-i", &made(archive)?.file.to_string_lossy()]),
            Self::Pull => {
                let name = &made(archive)?.name;
                let plain = (engine.kind == Kind::Podman).then_some("--tls-verify=false");
                engine.call(&["pull"].into_iter().chain(plain).chain([name.as_str()]).collect::<Vec<_>>())
            }
        }
    }

    /// Makes the next round start from where this one did.
    pub(crate) fn reset(self, engine: &Engine, archive: Option<&Archive>) -> Result<()> {
        match self {
            Self::Start50 => remove_many(engine, 50),
            Self::Memory => remove_many(engine, 10),
            Self::Load | Self::Pull => engine.call(&["rmi", "-f", &made(archive)?.name]),
            _ => Ok(()),
        }
    }
}

fn made(archive: Option<&Archive>) -> Result<&Archive> {
    archive.context("no image was prepared to move")
}

fn start_many(engine: &Engine, count: usize) -> Result<()> {
    let mut running = Vec::new();
    for n in 0..count {
        // Eight at a time: the oldest is waited for before the ninth starts.
        if running.len() == 8 {
            finish(running.remove(0))?;
        }
        let name = format!("many-{n}");
        let child = engine.command(&["run", "-d", "--name", &name, "busybox", "sleep", "3600"]).spawn();
        running.push(child.context("start a container")?);
    }
    running.into_iter().try_for_each(finish)
}

fn finish(child: std::process::Child) -> Result<()> {
    let output = child.wait_with_output().context("wait for a start")?;
    ensure!(output.status.success(), "a start failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn remove_many(engine: &Engine, count: usize) -> Result<()> {
    let names: Vec<String> = (0..count).map(|n| format!("many-{n}")).collect();
    let mut args = vec!["rm", "-f"];
    // The others kill at once; podman would wait ten seconds for each.
    if engine.kind == Kind::Podman {
        args.extend(["--time", "0"]);
    }
    args.extend(names.iter().map(String::as_str));
    engine.call(&args)
}
