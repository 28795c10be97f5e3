//! The same Dockerfile built by `cata`, docker and buildah, and what came out compared: files, modes, owners,
//! times, extended attributes, configuration and history. What differs is in [`allowed`] with its reason, or it
//! is a failure.

mod allowed;
mod builder;
mod difference;
mod image;
mod machine;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

pub use builder::Builder;
pub use difference::Difference;
pub use machine::describe;

use crate::cache;
use crate::world::World;

/// A folder beneath `tests/builds/`.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// Its name.
    pub name: &'static str,
    /// Packages come from registries during the build.
    pub online: bool,
}

/// All of them.
pub const ALL: [Build; 10] = [
    Build { name: "scratch", online: false },
    Build { name: "removals", online: false },
    Build { name: "package", online: false },
    Build { name: "postgres", online: true },
    Build { name: "nginx", online: true },
    Build { name: "redis", online: true },
    Build { name: "rust", online: true },
    Build { name: "static", online: true },
    Build { name: "node", online: true },
    Build { name: "python", online: true },
];

/// What came of a build, for the table.
#[derive(Debug)]
pub struct Outcome {
    /// Files in `cata`'s image.
    pub files: usize,
    /// Layers in it.
    pub layers: usize,
    /// By peer: its name, its layers, what differs and is expected, what differs and is not.
    pub peers: Vec<(&'static str, usize, Vec<(Difference, &'static str)>, Vec<Difference>)>,
}

/// Lays the context out: the folder, and what its `prepare` makes, which is told the copy and the repository.
///
/// # Errors
/// When that fails.
pub fn context(world: &World, build: &Build, machine: Option<&Path>) -> Result<std::path::PathBuf> {
    let from = cache::repository().join("tests/builds").join(build.name);
    let to = world.scratch().join("contexts").join(build.name);
    fs::create_dir_all(to.parent().unwrap_or(&to)).context("make the contexts' folder")?;
    let run = |program: &str, args: &[&Path]| {
        let output = std::process::Command::new(program).args(args).current_dir("/").output();
        let output = output.with_context(|| format!("run {program}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{program}: {}\n{said}", output.status);
        Ok(())
    };
    run("cp", &[Path::new("-a"), &from, &to])?;
    if let Some(machine) = machine {
        run("cp", &[Path::new("-a"), machine, &to.join("machine")])?;
    }
    let prepare = to.join("prepare");
    if prepare.exists() {
        run("sh", &[&prepare, &to, cache::repository()])?;
        fs::remove_file(&prepare).context("remove the script")?;
    }
    // As after a checkout of any age: what a build makes is younger.
    run(
        "find",
        &[
            &to,
            Path::new("-exec"),
            Path::new("touch"),
            Path::new("-h"),
            Path::new("-d"),
            Path::new("2024-05-06 07:08:09Z"),
            Path::new("{}"),
            Path::new("+"),
        ],
    )?;
    Ok(to)
}

/// Builds it with everybody, and compares.
///
/// # Errors
/// When a context cannot be made or an archive cannot be read.
pub fn play(world: &World, build: &Build, builders: &[Builder], machine: Option<&Path>) -> Result<Outcome> {
    let context = context(world, build, machine)?;
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock")?.as_secs();
    let network = if build.online { "host" } else { "none" };
    let one = |builder: &Builder| -> Result<(&'static str, image::Image)> {
        let _ = builder.build(world, &context, network);
        let archive = world.scratch().join(format!("{}.tar", builder.name()));
        builder.save(world, &archive);
        let mut image = image::read(&archive)?;
        fs::remove_file(&archive).context("remove an archive")?;
        difference::forget_new_times(&mut image, i64::try_from(begun).unwrap_or(i64::MAX));
        Ok((builder.name(), image))
    };
    let made: Result<Vec<_>> = std::thread::scope(|scope| {
        let all: Vec<_> = builders.iter().map(|builder| scope.spawn(|| one(builder))).collect();
        let failed = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
            Ok(text) => anyhow::anyhow!(*text),
            Err(_) => anyhow::anyhow!("it panicked"),
        };
        all.into_iter().map(|one| one.join().map_err(failed)?).collect()
    });
    let made = made?;
    let (_, ours) = made.first().context("nobody builds")?;
    let mut outcome = Outcome { files: ours.files.len(), layers: ours.layers, peers: Vec::new() };
    for (peer, theirs) in &made[1..] {
        let mut expected = Vec::new();
        let mut unexpected = Vec::new();
        for found in difference::all(ours, theirs) {
            match allowed::reason(build.name, peer, &found) {
                Some(reason) => expected.push((found, reason)),
                None => unexpected.push(found),
            }
        }
        outcome.peers.push((peer, theirs.layers, expected, unexpected));
    }
    Ok(outcome)
}
