//! What tests of another platform's machines run, made of Debian's arm64 packages: downloaded and unpacked,
//! never installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cata_kernel::image::Arch;
use cata_kernel::package;
use cata_tests::{cache, foreign};

/// Makes kernel and image with this `cata`, and takes the emulator, unless they are in the cache.
pub(crate) fn make(cata: &Path) -> Result<()> {
    let _lock = cache::lock("arm64")?;
    take_emulator()?;
    let dir = foreign::dir()?;
    if dir.exists() {
        return Ok(());
    }
    println!("taking a kernel and an image for arm64");
    let partial = dir.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let (debs, tree) = (partial.join("debs"), partial.join("tree"));
    for folder in [&debs, &tree] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let mut install = Command::new(cata);
    install.args(["kernel", "install", "--quiet", "--platform", "linux/arm64"]);
    install.env("CATA_ROOT", partial.join("root")).env("CATA_STATE", partial.join("state"));
    run(&mut install)?;

    let (deb, _) = package::download("busybox-static", Arch::Arm64, &debs)?;
    package::extract(&deb, &tree)?;
    for folder in ["etc", "proc", "sys", "dev", "root", "tmp"] {
        fs::create_dir_all(tree.join(folder)).with_context(|| format!("create {folder}"))?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").context("write etc/passwd")?;
    // This machine's own is of the same source, and can be asked.
    let applets = Command::new("busybox").arg("--list").output().context("run busybox")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        let place = tree.join("bin").join(applet);
        if !place.exists() {
            fs::hard_link(tree.join("bin/busybox"), &place).with_context(|| format!("link {applet}"))?;
        }
    }
    let tar = partial.join("busybox.tar");
    run(Command::new("tar").arg("-cf").arg(tar).arg("-C").arg(&tree).args(["--numeric-owner", "."]))?;
    for folder in [&debs, &tree] {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::rename(&partial, &dir).with_context(|| format!("rename {}", partial.display()))
}

/// Not installed, which would have this machine's kernel use it.
fn take_emulator() -> Result<()> {
    let place = foreign::emulator()?;
    if place.exists() {
        return Ok(());
    }
    println!("taking an emulator for arm64 programs");
    let work = place.with_extension("partial");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let (deb, _) = package::download("qemu-user-static", Arch::NATIVE, &work)?;
    let tree = work.join("tree");
    package::extract(&deb, &tree)?;
    let program = tree.join("usr/bin/qemu-aarch64-static");
    fs::rename(&program, &place).with_context(|| format!("rename {}", program.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
