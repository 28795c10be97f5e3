//! `cargo xtask demo`: a real PostgreSQL as a container, from nothing, each command and its output printed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache;
use cata_tests::world::{self, Setup, World};
use clap::Args;

use crate::{build, deps, images};

mod story;

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave PostgreSQL and its world running
    #[arg(long)]
    keep: bool,
    /// Play it on this machine itself, not in namespaces of its own
    #[arg(long)]
    here: bool,
    /// The process that stays with a kept world.
    #[arg(long, hide = true)]
    keeper: bool,
}

/// Prepares and plays, or, inside the world, only plays.
pub(crate) fn run(options: &Options, world: Option<World>) -> Result<()> {
    if let Some(world) = world {
        let played = story::play(&world, options.keep);
        if options.keep {
            let word = if played.is_ok() { "played" } else { "failed" };
            fs::write(world.dir.join("outcome"), word).context("tell the outcome")?;
        }
        return played;
    }
    if options.keeper {
        return keep();
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo needs root: it makes namespaces, mounts and cgroups"
    );
    world::sweep();
    deps::run(deps::Set::Demo)?;
    let programs = build::run(&build::Options { release: true, arm64: false })?;
    images::make(&["debian", "postgres"])?;
    // Inherited by the world and by everything in it.
    let variables = [("CATA_BIN", programs.cata), ("CATA_SUPERVISOR", programs.supervisor)];
    match (options.here, options.keep) {
        (true, _) => here(&variables, options.keep),
        (false, true) => start_keeper(&variables),
        (false, false) => {
            let status = setup("demo", &variables, false)?.run()?;
            ensure!(status.success(), "the demo failed");
            Ok(())
        }
    }
}

fn setup(kind: &str, variables: &[(&str, PathBuf)], keep: bool) -> Result<Setup> {
    let name = format!("cata-{kind}-{}", std::process::id());
    let mut args = vec!["demo".into()];
    if keep {
        args.push("--keep".into());
    }
    Ok(Setup {
        dir: cache::dir()?.join("worlds").join(&name),
        name,
        args,
        env: variables.iter().map(|(name, path)| ((*name).into(), path.into())).collect(),
        deadline: (!keep).then_some(Duration::from_secs(600)),
        linger: keep,
        output: None,
        shares_network: false,
    })
}

/// On the machine itself: its network and its processes, but an engine root of the demo's own.
fn here(variables: &[(&str, PathBuf)], keep: bool) -> Result<()> {
    let name = format!("cata-here-{}", std::process::id());
    let dir = cache::dir()?.join("worlds").join(&name);
    fs::create_dir_all(dir.join("scratch")).with_context(|| format!("create {}", dir.display()))?;
    let world = World { name: name.clone(), dir: dir.clone() };
    let state = PathBuf::from("/run").join(&name);
    let played = {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["demo"]).args(keep.then_some("--keep"));
        // The last stage of a world, without the stages that make one.
        command.env("CATA_WORLD_STAGE", "inside").env("CATA_WORLD_NAME", &name).env("CATA_WORLD_DIR", &dir);
        command.env("CATA_ROOT", world.root()).env("CATA_STATE", &state);
        command.envs(variables.iter().map(|(name, path)| (*name, path)));
        command.status().context("play the story")?
    };
    if keep && played.success() {
        println!("\nIt is still running. To use it, and to end it:");
        println!("  export CATA_ROOT={} CATA_STATE={}", world.root().display(), state.display());
        println!("  cata ps ; cata rm -f -v pg");
        return Ok(());
    }
    for dir in [dir, state] {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
    }
    ensure!(played.success(), "the demo failed");
    Ok(())
}

/// Starts a process that stays with the world, and returns once the story has been played.
fn start_keeper(variables: &[(&str, PathBuf)]) -> Result<()> {
    let mut command = Command::new("setsid");
    command.arg(std::env::current_exe()?).args(["demo", "--keeper"]).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, path)| (*name, path)));
    let mut keeper = command.spawn().context("run `setsid`")?;
    // `setsid` execs when it need not fork, so the keeper has this id.
    let dir = cache::dir()?.join("worlds").join(format!("cata-keep-{}", keeper.id()));
    loop {
        match fs::read_to_string(dir.join("outcome")).as_deref() {
            Ok("played") => break,
            Ok("failed") => bail!("the demo failed"),
            _ => {}
        }
        if let Some(status) = keeper.try_wait().context("wait for the keeper")? {
            bail!("the demo failed: {status}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let unshare = only_child(keeper.id())?;
    let first = only_child(unshare)?;
    println!(
        "\nIt is still running, in a world whose first process is {first} here. To go in, and to end it:"
    );
    println!(
        "  nsenter -t {first} -m -u -n -i -p env CATA_ROOT={} CATA_STATE=/run/catamaran bash",
        dir.join("root").display()
    );
    println!("  kill -9 {first}");
    Ok(())
}

fn only_child(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok())
        .with_context(|| format!("{pid} has no child"))
}

/// The keeper: makes the world and cleans up after it, however long that takes.
fn keep() -> Result<()> {
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    let variables = [("CATA_BIN", variable("CATA_BIN")?), ("CATA_SUPERVISOR", variable("CATA_SUPERVISOR")?)];
    let status = setup("keep", &variables, true)?.run()?;
    ensure!(status.success(), "the demo failed");
    Ok(())
}
