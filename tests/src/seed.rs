//! Engine roots that already hold images: imported once into a template, then hard-linked for each world.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache::{self, Recipe, hex};
use crate::command::cata_binary;
use crate::world::World;

/// What is so large that the lab, where it cannot be linked, has better to do than copying its files.
const LARGE: [&str; 1] = ["postgres"];

/// Fills the world's root with these images.
///
/// # Errors
/// When an image has not been made or cannot be imported.
pub fn seed(world: &World, images: &[&str]) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    // Another `cata` than this one, tested at the same time, makes its own in this one's place.
    let (template, _shared) = template(world, images)?;
    let root = world.root();
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    // Layers and blobs never change once they are visible, so they can be shared. Everything else must be
    // the world's own: what the engine rewrites, and above all its lock files, for a lock on one inode would
    // make every world wait for (or, where it only tries, give way to) all others.
    if copy(&["-a", "--link"], &template.join("."), &root).is_err() {
        // Another file system, as in the lab.
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        if images.iter().any(|image| LARGE.contains(image)) {
            lend(&template, &root)?;
        } else {
            copy(&["-a", "--reflink=auto"], &template.join("."), &root)?;
        }
    }
    for own in ["content/index.json", "content/oci-layout"] {
        if template.join(own).exists() {
            fs::remove_file(root.join(own))?;
            copy(&["-a"], &template.join(own), &root.join(own))?;
        }
    }
    for lock in ["content/index.lock", "content/lease.lock"] {
        match fs::remove_file(root.join(lock)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {lock}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies all but the files of layers, which are seen where they are.
fn lend(template: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(template).with_context(|| format!("read {}", template.display()))? {
        let name = entry?.file_name();
        if name != "layers" {
            copy(&["-a"], &template.join(&name), root)?;
        }
    }
    let layers = template.join("layers");
    for entry in fs::read_dir(&layers).with_context(|| format!("read {}", layers.display()))? {
        let (from, to) = (entry?.path(), root.join("layers"));
        let to = to.join(from.file_name().unwrap_or_default());
        let diff = to.join("diff");
        fs::create_dir_all(&diff).with_context(|| format!("create {}", diff.display()))?;
        copy(&["-a"], &from.join("layer.json"), &to)?;
        rustix::mount::mount_bind(from.join("diff"), &diff)
            .with_context(|| format!("bind {}", diff.display()))?;
    }
    Ok(())
}

/// Whether a mount there is one that the world was given.
#[must_use]
pub fn is_lent(world: &World, at: &Path) -> bool {
    at.ends_with("diff") && at.parent().and_then(Path::parent) == Some(world.root().join("layers").as_path())
}

fn copy(options: &[&str], from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").args(options).arg(from).arg(to).output().context("run `cp`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cp {} {}: {said}", from.display(), to.display());
    Ok(())
}

/// The template of a set of images, made by the `cata` under test unless it is there; and what keeps it there.
fn template(world: &World, images: &[&str]) -> Result<(PathBuf, cache::Lock)> {
    let mut images = images.to_vec();
    images.sort_unstable();
    let set = images.join("+");
    let name = format!("template-{set}");
    let folder = cache::dir()?.join("templates");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let template = folder.join(format!("{set}-{}", key(&images)?));
    loop {
        let shared = cache::share(&name)?;
        if template.exists() {
            return Ok((template, shared));
        }
        drop(shared);
        let _lock = cache::lock(&name)?;
        if !template.exists() {
            make(world, &images, &folder, &template)?;
        }
    }
}

fn make(world: &World, images: &[&str], folder: &Path, template: &Path) -> Result<()> {
    let set = images.join("+");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.rsplit_once('-').is_some_and(|(other, _)| other == set) {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    let partial = folder.join(format!("{set}-partial"));
    for image in images {
        let mut command = Command::new(cata_binary());
        command.args(Recipe::of(image).import_args()?);
        command.env("CATA_ROOT", &partial).env("CATA_STATE", world.state());
        let output = command.output().context("run cata import")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cata import {image}: {}\n{said}", output.status);
    }
    fs::rename(&partial, template).with_context(|| format!("rename {}", partial.display()))?;
    Ok(())
}

/// Changes with the recipes and with the `cata` that imports.
fn key(images: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for image in images {
        hash.update(Recipe::of(image).key()?);
    }
    let cata = cata_binary();
    let meta = fs::metadata(&cata).with_context(|| format!("look at {}", cata.display()))?;
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    hash.update(format!("{} {:?}", meta.size(), modified));
    Ok(hex(&hash.finalize()[..6]))
}
