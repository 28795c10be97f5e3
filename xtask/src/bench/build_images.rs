//! `bench build`: one multi-stage build of 5,000 files, by each engine in turn: from nothing, with one file
//! changed, and with nothing changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cata_tests::cache::Recipe;
use cata_tests::world::World;

use super::Options;
use super::engine::{Engine, Kind};

const FILES: usize = 5000;

const DOCKERFILE: &str = "\
FROM busybox AS compile
WORKDIR /src
COPY . .
RUN find . -name '*.c' | sort | head -500 | xargs cat > /program && chmod 755 /program
FROM busybox
ENV APPLICATION=bench
COPY --from=compile /program /usr/local/bin/program
COPY --from=compile /src /srv/application
RUN touch /srv/ready
CMD [\"program\"]
";

/// Who builds.
enum Builder {
    Engine(Engine),
    /// Its own words, and a root of its own.
    Buildah(PathBuf),
}

impl Builder {
    fn name(&self) -> &'static str {
        match self {
            Self::Engine(engine) => engine.kind.name(),
            Self::Buildah(_) => "buildah",
        }
    }

    fn command(&self, context: &Path, fresh: bool) -> Command {
        let mut command = match self {
            Self::Engine(engine) => engine.command(&["build", "-q", "-t", "bench"]),
            Self::Buildah(root) => {
                let mut command = buildah(root);
                command.args(["build", "-q", "--layers", "-t", "bench"]);
                command
            }
        };
        if fresh {
            command.arg("--no-cache");
        }
        command.arg(context).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn buildah(root: &Path) -> Command {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(root).args(["--runroot", "/run/buildah", "--storage-driver", "overlay"]);
    command.env("BUILDAH_ISOLATION", "chroot");
    command
}

/// Measures and prints.
pub(super) fn run(options: &Options, world: &World) -> Result<()> {
    let wanted = |name: &str| options.engine.is_empty() || options.engine.iter().any(|engine| engine == name);
    let mut builders = Vec::new();
    for kind in [Kind::Cata, Kind::Podman, Kind::Docker].into_iter().filter(|kind| wanted(kind.name())) {
        match Engine::prepare(kind, world) {
            Ok(engine) => builders.push(Builder::Engine(engine)),
            Err(error) => println!("{} is left out: {error:#}", kind.name()),
        }
    }
    if wanted("buildah") {
        match prepare_buildah(world) {
            Ok(root) => builders.push(Builder::Buildah(root)),
            Err(error) => println!("buildah is left out: {error:#}"),
        }
    }
    let context = world.scratch().join("context");
    write_context(&context)?;
    let rounds = options.rounds.min(5);
    println!("\n{FILES} files, two stages, {rounds} rounds; wall time in milliseconds (best, median)\n");
    println!("{:<10} {:>22} {:>22} {:>22}", "", "from nothing", "one file changed", "nothing changed");
    let mut times: Vec<[Vec<f64>; 3]> = builders.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        for (builder, times) in builders.iter().zip(&mut times) {
            times[0].push(timed(builder, &context, true)?);
            fs::write(
                context.join("dir7/file7.c"),
                format!("changed in round {round} for {}\n", builder.name()),
            )?;
            times[1].push(timed(builder, &context, false)?);
            times[2].push(timed(builder, &context, false)?);
        }
    }
    for (builder, times) in builders.iter().zip(&mut times) {
        let cells = times.each_mut().map(|list| {
            list.sort_by(f64::total_cmp);
            format!("{:.0}, {:.0}", list[0], list[list.len() / 2])
        });
        println!("{:<10} {:>22} {:>22} {:>22}", builder.name(), cells[0], cells[1], cells[2]);
    }
    Ok(())
}

fn timed(builder: &Builder, context: &Path, fresh: bool) -> Result<f64> {
    let started = Instant::now();
    let output =
        builder.command(context, fresh).output().with_context(|| format!("run {}", builder.name()))?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} build: {}\n{said}", builder.name(), output.status);
    Ok(took)
}

fn prepare_buildah(world: &World) -> Result<PathBuf> {
    let root = world.scratch().join("buildah");
    // Buildah imports no bare root file systems: through a build from scratch.
    let context = world.scratch().join("buildah-base");
    fs::create_dir_all(&context).context("create a context")?;
    fs::copy(Recipe::of("busybox").made()?, context.join("root.tar")).context("copy the root file system")?;
    fs::write(context.join("Dockerfile"), "FROM scratch\nADD root.tar /\nCMD [\"sh\"]\n")?;
    let output = buildah(&root).args(["build", "-q", "-t", "busybox"]).arg(&context).output();
    let output = output.context("run `buildah` (Debian package buildah)")?;
    ensure!(output.status.success(), "buildah: {}", String::from_utf8_lossy(&output.stderr));
    Ok(root)
}

/// 30 MB in 5,000 files of 100 directories.
fn write_context(context: &Path) -> Result<()> {
    for directory in 0..100 {
        let path = context.join(format!("dir{directory}"));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        for file in 0..FILES / 100 {
            let line = format!("int function_{directory}_{file}(void) {{ return {}; }}\n", directory * file);
            let extension = if file % 2 == 0 { "h" } else { "c" };
            fs::write(path.join(format!("file{file}.{extension}")), line.repeat(6000 / line.len()))?;
        }
    }
    fs::write(context.join("Dockerfile"), DOCKERFILE).context("write the Dockerfile")
}
